//! Exports in the hands of a test: signed logs, exports of them, and exports that somebody has tampered with who knows the
//! format well enough to make all its digests right again.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::audit::check::{Report, Trusted, check_export};
use coupon_ledger::audit::checkpoint::{Signed, sign, verifier_key};
use coupon_ledger::audit::export::{Manifest, Wanted, export};
use coupon_ledger::audit::leaf;
use coupon_ledger::audit::merkle::Range;
use coupon_ledger::store::{BUCKET, Statement, StoredEvent};
use coupon_ledger::value::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{DAY, EMPLOYEE, FRIEND, MEMBER, NOON, World};
use crate::jobs::run_all;

/// The whole log, as it lies there.
pub async fn whole_log(world: &World) -> Vec<StoredEvent> {
    world.store().events_after(0, i64::MAX).await.unwrap()
}

/// Builds the tree over whatever the log holds now, and signs it with the ledger's own key.
pub async fn sign_log(world: &World) -> Signed {
    let log = whole_log(world).await;
    let leaves: Vec<_> = log.iter().map(leaf::hash).collect();
    let mut range = Range::empty(0);
    for leaf in &leaves {
        range.push(*leaf);
    }
    let mut statements = vec![
        Statement::new("DELETE FROM tlog_tiles", []),
        Statement::new("DELETE FROM tlog_checkpoints", []),
    ];
    let mut level = leaves;
    for number in 0_i64.. {
        if level.is_empty() {
            break;
        }
        for (index, tile) in (0_i64..).zip(level.chunks(256)) {
            let hashes = STANDARD.encode(tile.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>());
            let cells =
                [BUCKET.into(), number.into(), index.into(), (tile.len() as i64).into(), hashes.into()];
            statements.push(Statement::new("INSERT INTO tlog_tiles VALUES ($1, $2, $3, $4, $5)", cells));
        }
        let root = |tile: &[tlog_tiles::Hash]| {
            let mut range = Range::empty(0);
            for hash in tile {
                range.push(*hash);
            }
            range.root().unwrap()
        };
        level = level.chunks_exact(256).map(root).collect();
    }
    let origin = world.store().origin().await.unwrap().unwrap();
    let signed =
        sign(&origin, range.until(), range.root().unwrap(), &[world.secrets.checkpoint_key(1)]).unwrap();
    let row = [
        BUCKET.into(),
        (signed.size as i64).into(),
        STANDARD.encode(signed.root.0).into(),
        signed.note.as_str().into(),
        NOON.into(),
    ];
    statements.push(Statement::new("INSERT INTO tlog_checkpoints VALUES ($1, $2, $3, $4, $5)", row));
    let followed = "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, 'tlog', $2)
                    ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value";
    statements.push(Statement::new(followed, [BUCKET.into(), (signed.size as i64).into()]));
    world.store().write(statements).await.unwrap();
    signed
}

/// The key that an auditor has of this ledger.
pub async fn key_of(world: &World) -> String {
    let origin = world.store().origin().await.unwrap().unwrap();
    verifier_key(&origin, &world.secrets.checkpoint_key(1))
}

pub async fn trusted(world: &World) -> Trusted {
    Trusted::new(&[key_of(world).await], &[]).unwrap()
}

/// Signs the log as it is, and exports what is wanted of it.
pub async fn export_part(world: &World, folder: &Path, from: i64, to: Option<i64>) -> Manifest {
    sign_log(world).await;
    let secrets = Some(world.secrets.clone());
    let wanted = Wanted { from: Some(from), to, unsigned: false, secrets };
    export(world.store(), &wanted, folder, |_, _| {}).await.unwrap()
}

/// Signs the log as it is, and exports it whole.
pub async fn export_whole(world: &World, folder: &Path) -> Manifest {
    export_part(world, folder, 1, None).await
}

/// Signs, exports and checks: nothing is wrong with the log of any test.
pub async fn assert_sound(world: &World) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("export");
    export_whole(world, &export).await;
    let report = check_export(&export, &trusted(world).await, |_| {}).unwrap();
    assert_eq!(report.findings, []);
    report
}

/// An export to tamper with.
pub struct Copy {
    pub folder: tempfile::TempDir,
}

impl Copy {
    pub fn of(export: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(export).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.file("manifest.json")).unwrap()).unwrap()
    }

    /// Writes a manifest whose own digest is right.
    pub fn set_manifest(&self, mut manifest: Value) {
        let bytes =
            |manifest: &Value| [serde_json::to_vec_pretty(manifest).unwrap(), b"\n".to_vec()].concat();
        manifest["sha256"] = "".into();
        manifest["sha256"] = hex(&Sha256::digest(bytes(&manifest))).into();
        std::fs::write(self.file("manifest.json"), bytes(&manifest)).unwrap();
    }

    /// The lines of a compressed file.
    pub fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        let bytes = zstd::decode_all(std::fs::File::open(self.file(name)).unwrap()).unwrap();
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.pop();
        lines
    }

    /// Replaces a file's lines, and makes the manifest say so.
    pub fn set_lines(&self, name: &str, lines: &[Vec<u8>]) {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        self.set_file(name, &zstd::encode_all(bytes.as_slice(), 1).unwrap());
    }

    /// Replaces a file, and makes the manifest say so.
    pub fn set_file(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file(name), bytes).unwrap();
        let mut manifest = self.manifest();
        let files = manifest["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["name"] == name).unwrap();
        file["bytes"] = bytes.len().into();
        file["sha256"] = hex(&Sha256::digest(bytes)).into();
        self.set_manifest(manifest);
    }
}

/// A ledger in which everything has happened once: every type of event, and receipts of every kind. Some sixty events.
pub async fn full_life(world: &World) -> Life {
    world.add_people().await;
    world.operator("/member/add", json!({"id": 900, "nickname": "老王"})).await.ok();
    crate::wechat::bind(world, 900, "oGZUI0egBJY1zhBYw2KhdUfwVJJE").await;
    world.operator("/member/unbindwechat", json!({"id": 900})).await.ok();
    world.operator("/member/erase", json!({"id": 900, "reason": "會員要求"})).await.ok();
    let day = |number: i64| json!({"id": number});
    let definition = world.define(json!({"num": 20, "is_claim": 1, "use_limit": 1})).await;
    let dated = json!({"validity_type": 1, "start_num": "2026-11-01", "end_num": "2026-11-24"});
    let short = world.define(dated).await;
    let offer =
        crate::harness::definition(json!({"id": definition, "title": "改過", "use_limit": 1, "is_claim": 1}));
    for (route, body) in [
        ("/elecoupons/edit", offer),
        ("/elecoupons/inventory", json!({"id": definition, "num": 5, "type": 0})),
        ("/elecoupons/state", json!({"id": short, "state": 0})),
        ("/elecoupons/state", json!({"id": short, "state": 1})),
        ("/shop/edit", json!({"id": 1, "shop_name": "新店", "phone": "1", "address": "a", "state": 0})),
        ("/shop/edit", json!({"id": 1, "shop_name": "新店", "phone": "1", "address": "a", "state": 1})),
        ("/shop/rotateauditkey", day(1)),
        ("/business/add", json!({"shop_name": "隔壁", "phone": "1", "address": "a"})),
        (
            "/business/addattract",
            json!({"business_id": 2, "coupon_id": definition, "num": 3, "end_time": "2026-12-31"}),
        ),
        ("/business/editattract", json!({"id": 1, "end_time": "2026-12-30"})),
        ("/business/inventory", json!({"bc_id": 1, "num": 1, "type": 0})),
        ("/orderamount/add", json!({"amount": 1, "json": [{"coupon_id": definition, "num": 1}]})),
        ("/orderamount/edit", json!({"id": 1, "amount": 2, "json": [{"id": 1, "num": 2}]})),
        ("/goodsgroup/add", json!({"title": "飲料"})),
        ("/goodsgroup/edit", json!({"id": 1, "title": "熱飲"})),
        ("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7,8"})),
        ("/goodsgroup/del", day(1)),
        ("/office/add", json!({"title": "店長"})),
        ("/office/edit", json!({"id": 1, "title": "副店長"})),
        ("/office/setcompetence", json!({"id": 1, "competence_ids": "5,9"})),
        ("/user/edit", json!({"id": 1000, "office_id": 1})),
        ("/user/edit", json!({"id": 1000, "office_id": 0})),
        ("/office/del", day(1)),
    ] {
        let reply = world.operator(route, body).await;
        assert_eq!(reply.code(), 0, "{route}: {}", reply.body);
    }
    let operator = format!("Bearer {}", world.token(coupon_ledger::identity::Caller::Operator));
    let public_key = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
    let register = format!("/v1/partner-keys?partner_id=2&public_key={public_key}");
    for (method, path) in [
        ("POST", "/v1/machine-keys?name=till&rights=read"),
        ("DELETE", "/v1/machine-keys/1"),
        ("POST", &register),
        ("DELETE", "/v1/partner-keys/1"),
    ] {
        let reply = world.raw(method, path, &[("authorization", &operator)], Vec::new()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
    // One that is given, refused a wrong code, withdrawn, given again, received, used, taken back, used and reviewed.
    let used = world.issue(definition, 439).await;
    world.call(MEMBER, "/client/couponinfo", json!({"id": used})).await.ok();
    let code = world.give(MEMBER, used).await;
    assert_eq!(
        world.call(FRIEND, "/client/getcoupon", json!({"id": used, "code": code ^ 1})).await.code(),
        7001
    );
    world.call(MEMBER, "/client/withdrawcoupon", json!({"id": used})).await.ok();
    let code = world.give(MEMBER, used).await;
    world.call(FRIEND, "/client/getcoupon", json!({"id": used, "code": code})).await.ok();
    let body = json!({"mem_coupon_id": used, "shop_id": 1});
    let first = world.keyed(FRIEND, "first-use", "/client/auditcoupon", body.clone()).await;
    let redemption: i64 = first.ok()["id"].as_str().unwrap().parse().unwrap();
    world.call(EMPLOYEE, "/user/reverseelecoupon", json!({"id": redemption, "reason": "按錯"})).await.ok();
    let again = world.keyed(FRIEND, "second-use", "/client/auditcoupon", body).await.body;
    let review = json!({"id": used, "evaluation": "好", "score": 5});
    world.call(FRIEND, "/client/evaluacoupon", review).await.ok();
    // One that is voided, one that is handed out by the partner, and one from another system.
    let void = world.issue(definition, 439).await;
    world.operator("/user/voidelecoupon", json!({"mem_coupon_id": void, "reason": "發錯"})).await.ok();
    assert_eq!(world.call(MEMBER, "/wechat/receive", json!({"business_id": 2})).await.ok()[0]["code"], 0);
    let row = format!("900000,{definition},439,2026-01-01,2026-12-31,unused");
    let file = format!("id,coupon_id,member_id,start_date,end_date,state\n{row}\n");
    world.operator("/elecoupons/import", json!({"csv": file, "dry_run": 0})).await.ok();
    // An order with both kinds of receipts, and its end.
    let goods = json!([{"goods_id": 7, "price": "100", "state": 1, "count": 1}]);
    let body = json!({"member_id": 442, "goods": goods, "ora_id": 1, "order_no": "T-1"});
    let order = world.keyed(crate::harness::MEMBER, "no", "/order/add", json!({})).await;
    assert_ne!(order.code(), 0);
    let order =
        world.keyed(coupon_ledger::identity::Caller::Operator, "order-0001", "/order/add", body).await;
    world.operator("/order/cancel", json!({"id": order.ok()["id"]})).await.ok();
    world.operator("/orderamount/del", day(1)).await.ok();
    // A send that is paused and goes on, one that is cancelled, and an extension.
    let send = json!({"coupon_id": short, "shop_ids": "0"});
    let send = world.operator("/sendelecoupon/add", send).await.ok()["id"].clone();
    world.operator("/job/pause", json!({"id": send})).await.ok();
    world.operator("/job/resume", json!({"id": send})).await.ok();
    run_all(world).await;
    let extend = json!({"send_id": send, "end_date": "2026-11-25", "reason": "延期", "confirm": 1});
    world.operator("/elecoupons/extend", extend).await.ok();
    run_all(world).await;
    let recall = json!({"coupon_id": definition, "reason": "r", "confirm": 1});
    let recall = world.operator("/elecoupons/recall", recall).await.ok()["id"].clone();
    world.operator("/job/cancel", json!({"id": recall})).await.ok();
    crate::everything::accounts(world).await;
    crate::everything::webhooks(world).await;
    world.advance(1_000);
    crate::everything::proposals(world, definition).await;
    crate::everything::watched(world).await;
    // A gift that lapses, and coupons that expire.
    let lapsing = world.issue(definition, 439).await;
    world.give(MEMBER, lapsing).await;
    world.advance(4 * DAY);
    coupon_ledger::sweep::sweep(&world.ledger).await.unwrap();
    world.call(MEMBER, "/client/couponinfo", json!({"id": lapsing})).await.ok();
    world.give(MEMBER, lapsing).await;
    world.advance(DAY / 2);
    Life { used, again }
}

/// What a test remembers of it.
pub struct Life {
    /// The coupon that was used twice.
    pub used: i64,
    /// What its second use was answered, under `second-use`.
    pub again: Value,
}
