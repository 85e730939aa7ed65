//! The transparency log: the tree is RFC 6962's, receipts hold, and nothing is ever signed that contradicts what was signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::audit::checkpoint::{Cosigner, Opened, Signed, Trust, VerifierKey, with_cosignatures};
use coupon_ledger::audit::leaf;
use coupon_ledger::audit::receipt::{Patience, Receipt};
use coupon_ledger::audit::tlog::{
    self, Refused, SignError, Signer, TlogOptions, follow, run_tlog, verifier_keys,
};
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::followers::{self, Order};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use coupon_ledger::provenance::OVERLAP_MS;
use coupon_ledger::store::{BUCKET, Statement, Store, StoredEvent};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use ed25519_dalek::SigningKey;
use serde_json::json;
use sha2::Sha256;
use sha2::digest::Output;
use tlog_tiles::Hash;

use crate::check::force;
use crate::harness::{
    Engine, FRIEND, HOUR, Home, INSERT_MEMBERS, MEMBER, NOON, Reply, Server, World, definition,
};
use crate::log::without_guards;
use crate::outside::{Api, until};

/// The tree of these events as another implementation builds it.
fn other_tree(events: &[StoredEvent]) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    for event in events {
        tree.push(leaf::bytes(event));
    }
    tree
}

fn other_root(hash: Hash, leaves: u64) -> RootHash<Sha256> {
    RootHash::new(*Output::<Sha256>::from_slice(&hash.0), leaves)
}

fn bytes(proof: &[Hash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

async fn whole_log(store: &Store) -> Vec<StoredEvent> {
    store.events_after(0, i64::MAX).await.unwrap()
}

pub async fn follow_all(store: &Store) {
    while follow(store).await.unwrap().more {}
}

async fn signer(world: &World) -> Signer {
    Signer::new(world.ledger.clone(), world.home.path()).await.unwrap()
}

/// Follows and signs, as a server's tick does.
pub async fn tick(world: &World) -> Result<Option<Signed>, SignError> {
    follow_all(world.store()).await;
    signer(world).await.sign().await
}

/// Someone who pins the keys that this ledger has by now.
async fn trust(world: &World, generation: u32) -> Trust {
    let origin = world.store().origin().await.unwrap().unwrap();
    Trust::new(&verifier_keys(&world.secrets, &origin, generation), &[], 0).unwrap()
}

/// Members 1 to `members` each get a coupon: as many events.
async fn send_to(world: &World, definition: i64, members: i64) {
    let ids: Vec<i64> = (1..=members).collect();
    let values: Vec<String> = ids
        .iter()
        .filter(|id| ![439, 442].contains(*id))
        .map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)"))
        .collect();
    world.home.sql(&format!("{INSERT_MEMBERS} {} ON CONFLICT DO NOTHING", values.join(", "))).await.unwrap();
    let body = json!({"coupon_id": definition, "member_ids": ids});
    world.operator("/sendelecoupon/members", body).await.ok();
}

/// So many events of one stream at once, past every command.
async fn flood(world: &World, events: i64) {
    let insert = "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type,
                  event_version, payload, metadata, recorded_at_ms)";
    let numbers = format!("SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {events}");
    let select = format!(
        "SELECT 0, position + n, 'shop', '77', position + n, 'Opened', '1.0', '{{}}', '{{}}', {NOON}"
    );
    let sql = format!("{insert} WITH RECURSIVE numbers(n) AS ({numbers}) {select} FROM numbers, log_head");
    world.home.sql(&sql).await.unwrap();
    world.home.sql(&format!("UPDATE log_head SET position = position + {events}")).await.unwrap();
}

/// Lets a witness of this number cosign a stored checkpoint.
async fn cosign(world: &World, size: i64, number: u8) {
    let name = format!("witness.example/{number}");
    let witness = Cosigner::new(&name, SigningKey::from_bytes(&[number; 32]), 1_795_406_400).unwrap();
    let key = VerifierKey::parse(&witness.verifier_key()).unwrap();
    let read = format!("SELECT note FROM tlog_checkpoints WHERE size = {size}");
    let note = world.home.sql(&read).await.unwrap().remove(0);
    let note = with_cosignatures(&note, &witness.cosign(&note).unwrap(), &key).unwrap();
    let write = "UPDATE tlog_checkpoints SET note = $3 WHERE bucket = $1 AND size = $2";
    let statement = Statement::new(write, [BUCKET.into(), size.into(), note.into()]);
    world.store().write(vec![statement]).await.unwrap();
}

fn text(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body.as_str().unwrap().to_owned()
}

async fn bytes_of(world: &World, path: &str) -> (u16, Vec<u8>) {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    let token = world.token(Caller::Auditor);
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let answer = world.app.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// A copy of a ledger as it is now, its servers' folder included or left as it is.
async fn copy_of(home: &Home) -> Option<String> {
    match &home.database_url {
        None => {
            std::fs::copy(home.database_file(), home.path().join("copy.db")).unwrap();
            None
        }
        Some(url) => {
            let (server, name) = url.rsplit_once('/').unwrap();
            let admin = Home::on(Some(format!("{server}/postgres")));
            // Connections that were closed are gone a moment later.
            let copy = format!("CREATE DATABASE {name}_copy TEMPLATE {name}");
            until("nobody is on it", async || admin.sql(&copy).await.is_ok()).await;
            Some(format!("{url}_copy"))
        }
    }
}

/// Puts an older copy of the database in the place of this one, as an administrator can.
fn restore(home: Home, copy: Option<String>) -> Home {
    if copy.is_none() {
        for ending in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(home.path().join(format!("ledger.db{ending}")));
        }
        std::fs::rename(home.path().join("copy.db"), home.database_file()).unwrap();
    }
    Home { database_url: copy, ..home }
}

async fn reopen(home: Home) -> World {
    World::open(home, Clock::manual(NOON + HOUR), Zone::default()).await
}

#[track_caller]
fn refused(outcome: Result<Option<Signed>, SignError>) -> Refused {
    match outcome {
        Err(SignError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

on_both_engines! {
    async fn every_tile_and_every_root_is_that_of_another_implementation_at_every_size(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        // One by one, so that each tile is written again and again …
        for _ in 0..20 {
            world.issue(definition, 439).await;
            follow_all(world.store()).await;
        }
        // … and many at once, past the end of a tile and of a second.
        send_to(&world, definition, 280).await;
        follow_all(world.store()).await;
        send_to(&world, definition, 280).await;
        follow_all(world.store()).await;
        let events = whole_log(world.store()).await;
        let count = events.len() as u64;
        assert!(count > 560 && tlog::size(world.store()).await.unwrap() == count, "{count}");
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut roots = Vec::new();
        for size in 0..=count {
            let root = tlog::root(world.store(), size).await.unwrap().unwrap();
            assert_eq!(root.0.as_slice(), tree.root().as_bytes().as_slice(), "the root of {size}");
            roots.push(root);
            if let Some(event) = events.get(size as usize) {
                tree.push(leaf::bytes(event));
            }
        }
        assert_eq!(tlog::root(world.store(), count + 1).await.unwrap(), None);
        for (from, to) in [(1, 2), (1, count), (255, 256), (256, 257), (256, 512), (3, 511), (513, count), (count, count)] {
            let proof = tlog::consistency(world.store(), from, to).await.unwrap().unwrap();
            let proof = ConsistencyProof::try_from_bytes(bytes(&proof)).unwrap();
            let (old, new) = (other_root(roots[from as usize], from), other_root(roots[to as usize], to));
            new.verify_consistency(&old, &proof).unwrap();
        }
        assert_eq!(tlog::consistency(world.store(), 0, count).await.unwrap(), Some(Vec::new()));
        assert_eq!(tlog::consistency(world.store(), 5, 4).await.unwrap(), None);
        assert_eq!(tlog::consistency(world.store(), 5, count + 1).await.unwrap(), None);

        // The tiles as they are served.
        let leaves: Vec<u8> = events.iter().flat_map(|event| leaf::hash(event).0).collect();
        let last = count % 256;
        let above = [roots[256].0.as_slice(), other_tree(&events[256..512]).root().as_bytes()].concat();
        for (path, expected) in [
            ("0/000".to_owned(), &leaves[..8_192]),
            ("0/001".to_owned(), &leaves[8_192..16_384]),
            (format!("0/002.p/{last}"), &leaves[16_384..]),
            ("0/002.p/1".to_owned(), &leaves[16_384..16_384 + 32]),
            ("0/001.p/255".to_owned(), &leaves[8_192..16_384 - 32]),
            ("1/000.p/2".to_owned(), above.as_slice()),
        ] {
            assert_eq!(bytes_of(&world, &format!("/v1/tile/{path}")).await, (200, expected.to_vec()), "{path}");
        }
        for path in [
            "0/002", &format!("0/002.p/{}", last + 1), "0/003.p/1", "1/000", "1/000.p/3", "2/000.p/1", "9/000", "0/x001/000",
            "0/0", "0/000.p/0", "0/000.p/256", "64/000", "entries/000", "0/000.p/01", "00/000",
        ] {
            let (status, body) = bytes_of(&world, &format!("/v1/tile/{path}")).await;
            let body = String::from_utf8(body).unwrap();
            // `entries` is longer than a level can be.
            let expected = if path == "entries/000" { (400, "401") } else { (404, "9004") };
            assert_eq!((status, body.contains(&format!("\"code\":{}", expected.1))), (expected.0, true), "{path}: {body}");
        }
        let full = world.get(Caller::Auditor, "/v1/tile/0/001").await;
        assert_eq!(full.headers["cache-control"], "private, max-age=31536000, immutable");
        assert_eq!(full.headers["content-type"], "application/octet-stream");
        world.close().await;
    }

    /// It takes 4,000 events at a time, so at 32,000 a batch ends where a tile does, and the next tile is one of before.
    async fn a_log_that_is_hashed_anew_gets_the_same_tiles_and_goes_on_being_signed(engine: Engine) {
        let world = World::with_people(engine).await;
        flood(&world, 33_000).await;
        let signed = tick(&world).await.unwrap().unwrap();
        let tiles = async || {
            let sql = "SELECT level || '/' || tile_index || ' ' || hashes FROM tlog_tiles ORDER BY level, tile_index";
            world.home.sql(sql).await.unwrap()
        };
        let before = tiles().await;
        followers::order(&world.ledger, "tlog", Order::Reset).await.unwrap();
        assert_eq!(tlog::size(world.store()).await.unwrap(), 0);
        assert_eq!(tick(&world).await.unwrap(), None, "all of it is signed");
        assert_eq!(tlog::size(world.store()).await.unwrap(), signed.size);
        assert!(tiles().await == before, "the tiles are others than before");
        flood(&world, 1).await;
        assert_eq!(tick(&world).await.unwrap().unwrap().size, signed.size + 1);
        world.close().await;
    }

    /// What a receipt says is checked by other code: base64, and another Merkle tree.
    async fn a_receipt_of_every_event_of_a_coupon_holds_elsewhere_and_not_with_a_changed_byte(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
        let code = world.give(MEMBER, id).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        world.call(FRIEND, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        world.issue(definition, 439).await;
        let signed = tick(&world).await.unwrap().unwrap();
        let trust = trust(&world, 1).await;
        let log = whole_log(world.store()).await;
        let of_coupon: Vec<_> = log.iter().filter(|event| {
            (event.aggregate_type.as_str(), event.aggregate_id.as_str()) == ("coupon", id.to_string().as_str())
        }).collect();
        assert_eq!(of_coupon.len(), 5);
        for event in &of_coupon {
            let path = format!("/v1/coupons/{id}/receipt?sequence={}", event.sequence);
            let receipt = text(&world.get(Caller::Auditor, &path).await);
            let parsed = Receipt::parse(&receipt).unwrap();
            assert_eq!(parsed.to_string(), receipt);
            let (proven, opened) = parsed.open(&trust).unwrap();
            assert_eq!((&proven, opened.size), (*event, signed.size));
            // Independently: the lines, another base64 user, another tree.
            let lines: Vec<&str> = receipt.lines().collect();
            let leaf = STANDARD.decode(lines[1].strip_prefix("extra ").unwrap()).unwrap();
            let index: u64 = lines[2].strip_prefix("index ").unwrap().parse().unwrap();
            let blank = lines.iter().position(|line| line.is_empty()).unwrap();
            let proof: Vec<u8> = lines[3..blank].iter().flat_map(|line| STANDARD.decode(line).unwrap()).collect();
            let size: u64 = lines[blank + 2].parse().unwrap();
            let root = STANDARD.decode(lines[blank + 3]).unwrap();
            let root = RootHash::<Sha256>::new(*Output::<Sha256>::from_slice(&root), size);
            let proof = InclusionProof::try_from_bytes(proof).unwrap();
            root.verify_inclusion(&leaf, index, &proof).unwrap();
            assert_eq!(leaf, leaf::bytes(event));
            assert_eq!(root.as_bytes(), other_tree(&log[..size as usize]).root().as_bytes());
        }
        // One of them, byte by byte. The line of the signature's base64 may be written in more ways than one: its last
        // character has bits that mean nothing, which the strict decoder refuses.
        let receipt = text(&world.get(MEMBER, &format!("/v1/coupons/{id}/receipt?sequence=2")).await);
        for at in 0..receipt.len() {
            let mut changed = receipt.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            let opened = Receipt::parse(&changed).and_then(|receipt| receipt.open(&trust).map(drop));
            assert!(opened.is_err(), "byte {at}: {changed}");
        }
        world.close().await;
    }

    async fn a_member_gets_receipts_of_his_time_with_a_coupon_and_a_stranger_the_answer_of_no_coupon(engine: Engine) {
        let mut world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let code = world.give(MEMBER, id).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        world.call(FRIEND, "/client/couponinfo", json!({"id": id})).await.ok();
        let strangers = world.issue(definition, 439).await;
        tick(&world).await.unwrap().unwrap();
        let trust = trust(&world, 1).await;
        let sequence = async |world: &World, caller, path: String| {
            let reply = world.get(caller, &path).await;
            match reply.status.as_u16() {
                200 => Ok(Receipt::parse(&text(&reply)).unwrap().open(&trust).unwrap().0.sequence),
                _ => Err((reply.status.as_u16(), reply.code())),
            }
        };
        let last = |id: i64| format!("/v1/coupons/{id}/receipt");
        let one = |id: i64, sequence: i64| format!("/v1/coupons/{id}/receipt?sequence={sequence}");
        // Issued 1, Given 2, Received 3, Viewed 4: the receiving is both members'.
        for (caller, path, expected) in [
            (MEMBER, last(id), Ok(3)),
            (FRIEND, last(id), Ok(4)),
            (Caller::Operator, last(id), Ok(4)),
            (Caller::Auditor, one(id, 1), Ok(1)),
            (MEMBER, one(id, 1), Ok(1)),
            (MEMBER, one(id, 4), Err((404, 2001))),
            (FRIEND, one(id, 3), Ok(3)),
            (FRIEND, one(id, 2), Err((404, 2001))),
            (FRIEND, last(strangers), Err((404, 2001))),
            (FRIEND, last(999_999), Err((404, 2001))),
            (Caller::Auditor, one(id, 5), Err((404, 2001))),
            (MEMBER, "/v1/coupons/0/receipt".to_owned(), Err((400, 401))),
            (MEMBER, one(id, 0), Err((400, 401))),
            (MEMBER, format!("/v1/streams/coupon/{id}/receipt"), Err((403, 1002))),
            (Caller::Auditor, format!("/v1/streams/coupon/{id}/receipt"), Ok(4)),
            (Caller::Auditor, format!("/v1/streams/definition/{definition}/receipt?sequence=1"), Ok(1)),
            (Caller::Auditor, format!("/v1/streams/definition/{definition}/receipt?sequence=2"), Err((404, 9004))),
            // Of a member's stream there is nothing before he is erased.
            (Caller::Auditor, "/v1/streams/member/1/receipt".to_owned(), Err((404, 9004))),
            (Caller::Auditor, "/v1/streams/nothing/1/receipt".to_owned(), Err((400, 401))),
        ] {
            assert_eq!(sequence(&world, caller, path.clone()).await, expected, "{path} as {caller}");
        }
        let (stranger, nobody) = (world.get(FRIEND, &last(strangers)).await, world.get(FRIEND, &last(999_999)).await);
        assert_eq!(stranger.body, nobody.body);

        // What is not signed yet is not answered with less.
        world.set_options(HttpOptions {
            receipts: Patience { signature: std::time::Duration::ZERO, witnesses: 0 },
            ..HttpOptions::default()
        });
        let newest = world.issue(definition, 439).await;
        let early = world.get(MEMBER, &last(newest)).await;
        assert_eq!((early.status.as_u16(), early.code(), early.headers.contains_key("retry-after")), (503, 9002, true));
        world.close().await;
    }

    async fn nobody_is_handed_a_receipt_of_an_event_that_was_changed_since(engine: Engine) {
        let world = World::with_people(engine).await;
        let changed = world.define(json!({})).await;
        let other = world.define(json!({})).await;
        tick(&world).await.unwrap().unwrap();
        without_guards(&world.home).await;
        world.home.sql("UPDATE events SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 2").await.unwrap();
        let receipt = async |id: i64| world.get(Caller::Auditor, &format!("/v1/streams/definition/{id}/receipt")).await;
        let refused = receipt(changed).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (500, 9999), "{}", refused.body);
        let (event, _) = Receipt::parse(&text(&receipt(other).await)).unwrap().open(&trust(&world, 1).await).unwrap();
        assert_eq!(event.position, 3);
        world.close().await;
    }

    async fn nothing_is_signed_twice_and_every_signature_continues_the_one_before(engine: Engine) {
        let world = World::with_people(engine).await;
        let early = world.get(Caller::Auditor, "/v1/checkpoint").await;
        assert_eq!((early.status.as_u16(), early.code()), (503, 9002));
        let definition = world.define(json!({})).await;
        let trust = trust(&world, 1).await;
        let mut before: Option<Opened> = None;
        for _ in 0..5 {
            world.issue(definition, 439).await;
            tick(&world).await.unwrap().unwrap();
            assert_eq!(tick(&world).await.unwrap(), None, "nothing has come since");
            let served = world.get(Caller::Auditor, "/v1/checkpoint").await;
            assert_eq!(served.headers["content-type"], "text/plain; charset=utf-8");
            let opened = trust.open(&text(&served)).unwrap();
            let events = whole_log(world.store()).await;
            assert_eq!(opened.size, events.len() as u64);
            assert_eq!(opened.root.0.as_slice(), other_tree(&events).root().as_bytes().as_slice());
            if let Some(before) = before {
                let path = format!("/v1/consistency?from={}&to={}", before.size, opened.size);
                let proof = text(&world.get(Caller::Auditor, &path).await);
                let proof: Vec<u8> = proof.lines().flat_map(|line| STANDARD.decode(line).unwrap()).collect();
                let proof = ConsistencyProof::try_from_bytes(proof).unwrap();
                other_root(opened.root, opened.size)
                    .verify_consistency(&other_root(before.root, before.size), &proof)
                    .unwrap();
            }
            before = Some(opened);
        }
        let wrong = world.get(Caller::Auditor, "/v1/consistency?from=1&to=9999").await;
        assert_eq!((wrong.status.as_u16(), wrong.code()), (400, 401));
        let none = world.get(Caller::Auditor, "/v1/checkpoint?witnesses=1").await;
        assert_eq!((none.status.as_u16(), none.code()), (404, 9004));
        world.close().await;
    }

    async fn an_older_copy_of_the_database_is_not_signed_until_the_right_one_is_back(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        tick(&world).await.unwrap().unwrap();
        let home = world.close().await;
        let older = copy_of(&home).await;
        let world = reopen(home).await;
        for _ in 0..5 {
            world.issue(definition, 439).await;
        }
        let known = tick(&world).await.unwrap().unwrap().size;
        let home = world.close().await;
        let newer = match engine {
            Engine::Sqlite => {
                std::fs::copy(home.database_file(), home.path().join("newer.db")).unwrap();
                None
            }
            Engine::Postgres => home.database_url.clone(),
        };

        let world = reopen(restore(home, older)).await;
        assert!(matches!(refused(tick(&world).await), Refused::Smaller { known: k, .. } if k == known));
        // It grows beyond what was signed, with another history.
        for _ in 0..9 {
            world.issue(definition, 439).await;
        }
        for _ in 0..2 {
            assert!(matches!(refused(tick(&world).await), Refused::Inconsistent { known: k, .. } if k == known));
        }
        let served = trust(&world, 1).await.open(&text(&world.get(Caller::Auditor, "/v1/checkpoint").await)).unwrap();
        assert!(served.size < known, "nothing of the other history was signed");
        let home = world.close().await;
        if engine == Engine::Sqlite {
            std::fs::rename(home.path().join("newer.db"), home.path().join("copy.db")).unwrap();
        }
        let world = reopen(restore(home, newer)).await;
        assert_eq!(tick(&world).await.unwrap(), None, "all of it is signed");
        world.issue(definition, 439).await;
        assert_eq!(tick(&world).await.unwrap().unwrap().size, known + 1);
        world.close().await;
    }

    /// Whoever only looked on knows as well as whoever signed.
    async fn a_server_that_looked_on_refuses_an_older_copy_as_well(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        tick(&world).await.unwrap().unwrap();
        let home = world.close().await;
        let older = copy_of(&home).await;
        let world = reopen(home).await;
        world.issue(definition, 439).await;
        let beside = tempfile::tempdir().unwrap();
        let other = Signer::new(world.ledger.clone(), beside.path()).await.unwrap();
        let known = tick(&world).await.unwrap().unwrap().size;
        other.observe().await.unwrap();
        let home = world.close().await;
        let world = reopen(restore(home, older)).await;
        world.issue(definition, 442).await;
        follow_all(world.store()).await;
        let other = Signer::new(world.ledger.clone(), beside.path()).await.unwrap();
        assert!(matches!(refused(other.sign().await), Refused::Inconsistent { known: k, .. } if k == known));
        world.close().await;
    }

    async fn a_changed_event_is_not_signed_though_every_tile_is_made_anew(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let known = tick(&world).await.unwrap().unwrap();
        without_guards(&world.home).await;
        for sql in [
            "UPDATE events SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 2",
            "DELETE FROM tlog_tiles",
            "DELETE FROM checkpoints WHERE name = 'tlog'",
        ] {
            world.home.sql(sql).await.unwrap();
        }
        world.issue(definition, 439).await;
        // The file says so …
        let said = refused(tick(&world).await);
        assert!(matches!(said, Refused::Inconsistent { known: k, .. } if k == known.size), "{said}");
        assert!(said.to_string().contains("checkpoint-"), "{said}");
        // … and, without it, the database's own last checkpoint; without that, the file.
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Signer::new(world.ledger.clone(), elsewhere.path()).await.unwrap();
        let said = refused(stranger.sign().await);
        assert!(said.to_string().contains("tlog_checkpoints, size"), "{said}");
        world.home.sql("DELETE FROM tlog_checkpoints").await.unwrap();
        assert!(matches!(refused(tick(&world).await), Refused::Inconsistent { .. }));
        world.close().await;
    }

    async fn a_checkpoint_that_somebody_changed_is_not_continued(engine: Engine) {
        let world = World::with_people(engine).await;
        tick(&world).await.unwrap().unwrap();
        let definition = world.define(json!({})).await;
        let root = STANDARD.encode([7; 32]);
        for sql in [
            "UPDATE tlog_checkpoints SET size = size - 1".to_owned(),
            format!("UPDATE tlog_checkpoints SET size = size + 1, root = '{root}'"),
            "UPDATE tlog_checkpoints SET note = 'x'".to_owned(),
        ] {
            world.home.sql(&sql).await.unwrap();
            world.issue(definition, 439).await;
            let said = refused(tick(&world).await);
            assert!(matches!(said, Refused::Untrusted { .. }), "{sql}: {said}");
        }
        world.close().await;
    }

    async fn a_missing_event_or_a_tile_that_does_not_fit_stops_it_loudly_until_mended(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let running = TlogOptions { folder: world.home.path().to_owned(), witnesses: Vec::new() };
        let running = tokio::spawn(run_tlog(world.ledger.clone(), running));
        let failed = async |wanted: i64| {
            let metrics = text(&world.raw("GET", "/metrics", &[], Vec::new()).await);
            metrics.contains(&format!("coupon_ledger_follower_failed{{follower=\"tlog\"}} {wanted}\n"))
        };
        let signed = async || tlog::latest(world.store()).await.unwrap().map_or(0, |signed| signed.size as i64);
        until("all is signed", async || signed().await == 2).await;
        until("it says that all is well", async || failed(0).await).await;
        without_guards(&world.home).await;
        // The tile goes first: without it what comes next cannot be hashed in.
        let hashes = world.home.sql("SELECT hashes FROM tlog_tiles").await.unwrap().remove(0);
        world.home.sql("UPDATE tlog_tiles SET width = 1").await.unwrap();
        world.issue(definition, 439).await;
        until("it says that it stands still", async || failed(1).await).await;
        assert_eq!(tlog::size(world.store()).await.unwrap(), 2, "nothing is written then");
        assert_eq!(world.home.sql("SELECT hashes FROM tlog_tiles").await.unwrap(), [hashes]);
        world.home.sql("UPDATE tlog_tiles SET width = 2").await.unwrap();
        until("it goes on", async || signed().await == 3).await;
        until("it says so", async || failed(0).await).await;
        running.abort();
        let _ = running.await;

        let position = "UPDATE events SET position = position + 10 WHERE position = (SELECT max(position) FROM events)";
        world.issue(definition, 439).await;
        world.home.sql(position).await.unwrap();
        let error = follow(world.store()).await.unwrap_err();
        assert_eq!(error.to_string(), "events, column position: 4 is missing");
        assert_eq!(tlog::size(world.store()).await.unwrap(), 3);
        world.close().await;
    }

    async fn two_that_follow_and_sign_at_once_do_no_harm(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for round in 0..4 {
            send_to(&world, definition, 100).await;
            let ticks = folders.iter().map(|folder| {
                let (ledger, folder) = (world.ledger.clone(), folder.path().to_owned());
                tokio::spawn(async move {
                    let signer = Signer::new(ledger.clone(), &folder).await.unwrap();
                    follow_all(ledger.store()).await;
                    signer.sign().await.unwrap()
                })
            });
            let ticks: Vec<_> = ticks.collect();
            let mut signed = Vec::new();
            for tick in ticks {
                signed.extend(tick.await.unwrap());
            }
            assert_eq!(signed.len(), 1, "round {round}: {signed:?}");
            let events = whole_log(world.store()).await;
            assert_eq!(signed[0].size, events.len() as u64);
            assert_eq!(signed[0].root.0.as_slice(), other_tree(&events).root().as_bytes().as_slice());
        }
        world.close().await;
    }

    async fn a_rotated_key_signs_beside_the_old_one_for_thirty_days_and_then_alone(engine: Engine) {
        let world = World::with_people(engine).await;
        tick(&world).await.unwrap().unwrap();
        let (old, both) = (trust(&world, 1).await, trust(&world, 2).await);
        let rotate = async |key: &str| {
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
            world.raw("POST", "/v1/keys/checkpoint", &headers, Vec::new()).await
        };
        let rotated = rotate("rotate-1").await;
        let keys = world.get(Caller::Auditor, "/v1/keys").await;
        let pinned = keys.body["checkpoint_keys"].as_array().unwrap().clone();
        assert_eq!(pinned.len(), 2);
        assert_eq!(rotated.body, json!({"generation": 2, "verifier_key": pinned[1]}));
        assert_eq!(keys.body["origin"], world.store().origin().await.unwrap().unwrap());
        let again = rotate("rotate-1").await;
        assert_eq!((&again.body, again.replayed()), (&rotated.body, true));
        // A second one so soon would leave those behind who have pinned the first key only.
        let soon = rotate("rotate-2").await;
        assert_eq!((soon.status.as_u16(), soon.code()), (409, 6004), "{}", soon.body);
        assert_eq!(world.get(MEMBER, "/v1/keys").await.code(), 1002);
        let event = whole_log(world.store()).await.pop().unwrap();
        assert_eq!((event.aggregate_type.as_str(), event.event_type.as_str()), ("ledger", "CheckpointKeyRotated"));
        assert!(!event.payload.contains("PRIVATE"), "{}", event.payload);

        let new = Trust::new(&[pinned[1].as_str().unwrap()], &[], 0).unwrap();
        let note = tick(&world).await.unwrap().unwrap().note;
        for trust in [&old, &new, &both] {
            trust.open(&note).unwrap();
        }
        world.advance(OVERLAP_MS);
        world.define(json!({})).await;
        let note = tick(&world).await.unwrap().unwrap().note;
        new.open(&note).unwrap();
        assert!(old.open(&note).is_err());
        assert_eq!(rotate("rotate-2").await.body["generation"], 3);
        new.open(&tick(&world).await.unwrap().unwrap().note).unwrap();
        world.close().await;
    }

    /// As many keys are derived as the ledger has had, not as many as an event says.
    async fn a_forged_rotation_does_not_say_how_many_keys_there_are(engine: Engine) {
        let world = World::with_people(engine).await;
        let long_ago = NOON - OVERLAP_MS;
        let forged = json!({"CheckpointKeyRotated": {"generation": 99, "verifier_key": "", "at_ms": long_ago, "employee_id": 0}});
        force(&world, "ledger", 1, 0, &[forged]).await;
        let note = tick(&world).await.unwrap().unwrap().note;
        trust(&world, 2).await.open(&note).unwrap();
        let keys = async || {
            let keys = world.get(Caller::Auditor, "/v1/keys").await;
            keys.body["checkpoint_keys"].as_array().unwrap().clone()
        };
        assert_eq!(keys().await.len(), 2);
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "rotate-it")];
        let rotated = world.raw("POST", "/v1/keys/checkpoint", &headers, Vec::new()).await;
        assert_eq!(rotated.body, json!({"generation": 3, "verifier_key": keys().await[2]}));
        world.close().await;
    }

    async fn the_last_minutes_checkpoints_are_kept_and_the_first_of_each_hour(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let begun = world.clock.now_ms();
        let mut signed_at = Vec::new();
        for minutes in [0, 10, 20, 70, 80, 190, 191, 192] {
            world.clock.set(begun + minutes * 60_000);
            world.issue(definition, 439).await;
            tick(&world).await.unwrap().unwrap();
            signed_at.push(minutes);
        }
        world.advance(5_000);
        let signer = signer(&world).await;
        for _ in 0..2 {
            signer.thin().await.unwrap();
            let sql = format!("SELECT (signed_at_ms - {begun}) / 60000 FROM tlog_checkpoints ORDER BY size");
            // NOON begins an hour. The last of all stays, whatever its hour has.
            assert_eq!(world.home.sql(&sql).await.unwrap(), ["0", "70", "190", "192"]);
        }
        world.close().await;
    }

    async fn the_last_checkpoint_that_so_many_have_cosigned_is_kept_and_found(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let begun = world.clock.now_ms();
        let mut sizes = Vec::new();
        for (minutes, witnesses) in [(0, 0), (10, 2), (20, 1), (30, 1), (40, 0)] {
            world.clock.set(begun + minutes * 60_000);
            world.issue(definition, 439).await;
            let size = tick(&world).await.unwrap().unwrap().size;
            for number in 0..witnesses {
                cosign(&world, size as i64, 8 + number).await;
            }
            sizes.push(size);
        }
        world.advance(2 * 60_000);
        let signer = signer(&world).await;
        for _ in 0..2 {
            signer.thin().await.unwrap();
            let sql = format!("SELECT (signed_at_ms - {begun}) / 60000 FROM tlog_checkpoints ORDER BY size");
            // The first of the hour, the last of two witnesses, the last of one, the last of all.
            assert_eq!(world.home.sql(&sql).await.unwrap(), ["0", "10", "30", "40"]);
        }
        // However many have come since that nobody cosigned.
        let numbers = "SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1100";
        let sql = format!(
            "INSERT INTO tlog_checkpoints (bucket, size, root, note, signed_at_ms)
             WITH RECURSIVE numbers(n) AS ({numbers})
             SELECT bucket, size + n, root, note, signed_at_ms FROM tlog_checkpoints, numbers WHERE size = {}",
            sizes[4]
        );
        world.home.sql(&sql).await.unwrap();
        let trust = trust(&world, 1).await;
        for (witnesses, expected) in [(1, sizes[3]), (2, sizes[1])] {
            let found = world.get(Caller::Auditor, &format!("/v1/checkpoint?witnesses={witnesses}")).await;
            assert_eq!(trust.open(&text(&found)).unwrap().size, expected, "{witnesses} witnesses");
        }
        let none = world.get(Caller::Auditor, "/v1/checkpoint?witnesses=3").await;
        assert_eq!((none.status.as_u16(), none.code()), (404, 9004));
        world.close().await;
    }

    async fn a_server_whose_note_is_gone_says_so_and_writes_it_again(engine: Engine) {
        let home = Home::new(engine).await;
        let logs = tempfile::tempdir().unwrap();
        let said = |log: &str| {
            let text = std::fs::read_to_string(logs.path().join(log)).unwrap();
            text.contains("this data folder does not remember what was signed")
        };
        let note = || {
            let names = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
            names.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "note"))
        };
        let server = Server::start_talkative(&home, &logs.path().join("first")).await;
        let api = Api::new(&home, &server);
        api.operator("/elecoupons/add", definition(json!({}))).await.ok();
        until("it is signed", async || api.get(Caller::Auditor, "/v1/checkpoint").await.0 == 200).await;
        server.kill().await;
        assert!(!said("first"));
        std::fs::remove_file(note().unwrap()).unwrap();
        let server = Server::start_talkative(&home, &logs.path().join("second")).await;
        until("it says so", async || said("second")).await;
        until("it is written again", async || note().is_some()).await;
        server.kill().await;
    }
}
