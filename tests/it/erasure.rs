//! What a member's texts look like from outside: in no file before he is erased, and nowhere at all afterwards.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::coupon::Coupon;
use coupon_ledger::directory::{self, Edited, MemberEdit, Search};
use coupon_ledger::erasure;
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::Meta;
use coupon_ledger::member::{Member, MemberCommand};
use coupon_ledger::person_keys::PersonKeys;
use coupon_ledger::read_model::pages::Slice;
use serde_json::{Value, json};

use crate::harness::{Engine, FRIEND, Home, MEMBER, NOON, Server, World, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, until};
use crate::replay::assert_rows_equal_replay;

/// So many digits are not met by chance.
const DIGITS: usize = 18;

fn random_digits() -> String {
    let bytes: [u8; 8] = coupon_ledger::value::random();
    format!("{:018}", u64::from_be_bytes(bytes) % 1_000_000_000_000_000_000)
}

/// Texts that nothing else holds.
struct Texts {
    phone: String,
    member_card: String,
    member_name: String,
    nickname: String,
    headimgurl: String,
    review: String,
}

impl Texts {
    fn new() -> Self {
        Self {
            phone: format!("139{}", random_digits()),
            member_card: format!("88{}", random_digits()),
            member_name: format!("王小明{}", random_digits()),
            nickname: format!("暱稱{}", random_digits()),
            headimgurl: format!("http://p/{}.png", random_digits()),
            review: format!("味道{}", random_digits()),
        }
    }

    fn form(&self, id: i64) -> Value {
        json!({"id": id, "phone": self.phone, "member_card": self.member_card, "member_name": self.member_name,
            "nickname": self.nickname, "headimgurl": self.headimgurl})
    }

    fn all(&self) -> [&str; 6] {
        let Self { phone, member_card, member_name, nickname, headimgurl, review } = self;
        [phone, member_card, member_name, nickname, headimgurl, review].map(String::as_str)
    }

    /// Those that stand in any of these bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let runs = runs_of_digits(bytes);
        let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).collect::<Vec<_>>();
        let holds = |text: &&str| digits(text).windows(DIGITS).any(|window| runs.contains(window));
        self.all().into_iter().filter(holds).collect()
    }
}

/// Whether the random digits of a text stand anywhere.
fn holds(bytes: &[u8], text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    runs_of_digits(bytes).contains(&digits[digits.len() - DIGITS..])
}

/// Everything that could be one of the random numbers.
fn runs_of_digits(bytes: &[u8]) -> HashSet<&[u8]> {
    let mut run = 0;
    let mut found = HashSet::new();
    for (end, byte) in (1..).zip(bytes) {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        if run >= DIGITS {
            found.insert(&bytes[end - DIGITS..end]);
        }
    }
    found
}

/// Every file that the ledger or its database writes, with the logs; on PostgreSQL the whole cluster.
async fn files(home: &Home) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(home.path(), &mut found);
    if home.database_url.is_some() {
        home.sql("CHECKPOINT").await.unwrap();
        let folder = home.sql("SHOW data_directory").await.unwrap().remove(0);
        walk(Path::new(&folder).join("pg_wal").as_path(), &mut found);
        let own = home
            .sql("SELECT oid::text FROM pg_database WHERE datname = current_database()")
            .await
            .unwrap()
            .remove(0);
        walk(&Path::new(&folder).join("base").join(own), &mut found);
        walk(&Path::new(&folder).join("base/pgsql_tmp"), &mut found);
    }
    assert!(!found.is_empty());
    found
}

/// The files that hold a text, of those that are still there.
async fn files_with(home: &Home, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<PathBuf> {
    let mut found = files(home).await;
    found.retain(|path| std::fs::read(path).is_ok_and(|bytes| is_wanted(&bytes)));
    found
}

/// What an export and a backup hold, unpacked.
async fn taken_away(home: &Home) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (export, backup) = (folder.path().join("export"), folder.path().join("ledger.backup"));
    let run = async |mut command: tokio::process::Command| {
        let output = command.heard().await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let mut command = program(home);
    command.args(["export", "--unsigned", "--out"]).arg(&export);
    run(command).await;
    let mut command = program(home);
    command.arg("backup").arg(&backup);
    run(command).await;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&export).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let is_packed = path.extension().is_some_and(|ending| ending == "zst");
        found.push(if is_packed { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes });
    }
    found.push(if home.database_url.is_some() {
        let mut unpack = tokio::process::Command::new("pg_restore");
        unpack.args(["-f", "-"]).arg(&backup);
        run(unpack).await
    } else {
        std::fs::read(&backup).unwrap()
    });
    found
}

/// What every page says that shows members, as one text.
async fn pages(api: &Api, texts: &Texts) -> String {
    let mut said = String::new();
    for (caller, route, body) in [
        (Caller::Operator, "/member/get", json!({"id": 439})),
        (Caller::Operator, "/member/info", json!({"member_id": 439})),
        (Caller::Operator, "/member/list", json!({"limit": 100})),
        (Caller::Operator, "/member/list", json!({"phone": texts.phone})),
        (Caller::Operator, "/member/list", json!({"member_card": texts.member_card})),
        (Caller::Operator, "/member/list", json!({"name": texts.member_name})),
        (Caller::Operator, "/member/list", json!({"name": texts.nickname})),
        (Caller::Operator, "/auditelecoupon/getlist", json!({"page": 1, "limit": 100})),
        (MEMBER, "/client/couponlist", json!({"state": 0})),
        (MEMBER, "/client/couponlist", json!({"state": 1})),
        (FRIEND, "/client/couponlist", json!({"state": 1})),
    ] {
        said += &api.call(caller, route, body).await.ok().to_string();
    }
    said
}

fn erase(member_id: i64) -> MemberCommand {
    MemberCommand::Erase { member_id, reason: "會員要求".to_owned(), employee_id: 0 }
}

fn meta(world: &World) -> Meta {
    Meta {
        caller: Caller::Operator,
        at: world.ledger.now(),
        request_id: "test".to_owned(),
        receipt: None,
        job_id: None,
    }
}

async fn found(world: &World, body: Value) -> Vec<i64> {
    let list = world.operator("/member/list", body).await;
    list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

async fn tokens(home: &Home) -> usize {
    home.sql("SELECT CAST(token AS TEXT) FROM member_tokens").await.unwrap().len()
}

on_both_engines! {
    async fn a_members_texts_are_in_no_file_and_once_he_is_erased_on_no_page(engine: Engine) {
        let home = Home::new(engine).await;
        let log = home.path().join("server.log");
        let server = Server::start_talkative(&home, &log).await;
        let api = Api::new(&home, &server);
        let (first, texts, other) = (Texts::new(), Texts::new(), Texts::new());
        api.operator("/shop/add", json!({"shop_name": "總店", "phone": "1", "address": "a"})).await.ok();
        api.operator("/member/add", first.form(439)).await.ok();
        api.operator("/member/add", other.form(442)).await.ok();
        api.operator("/member/edit", texts.form(439)).await.ok();
        let csv = format!("id,phone,nickname\n500,{},{}\n", first.phone, first.nickname);
        api.operator("/member/import", json!({"csv": csv, "dry_run": 0})).await.ok();
        let title = format!("券{}", random_digits());
        let definition = crate::harness::definition(json!({"title": title}));
        let definition = api.operator("/elecoupons/add", definition).await.ok()["id"].clone();
        let issue = json!({"coupon_id": definition, "member_id": 439});
        let id = api.operator("/sendelecoupon/one", issue).await.ok()["id"].clone();
        api.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        let review = json!({"id": id, "evaluation": texts.review, "score": 5});
        api.call(MEMBER, "/client/evaluacoupon", review).await.ok();

        let before = pages(&api, &texts).await;
        assert_eq!(texts.found_in(before.as_bytes()), texts.all(), "they are shown while he is here");
        assert!(!files_with(&home, |bytes| holds(bytes, &title)).await.is_empty(), "what is not personal is found");
        let leaks = |bytes: &[u8]| [&first, &texts, &other].iter().any(|texts| !texts.found_in(bytes).is_empty());
        assert_eq!(files_with(&home, leaks).await, Vec::<PathBuf>::new());
        assert!(std::fs::metadata(&log).unwrap().len() > 500, "the server has talked");

        let reply = api.keyed(Caller::Operator, "erase-439", "/member/erase", json!({"id": 439, "reason": "會員要求"})).await;
        assert_eq!(reply.ok()["id"], 439);
        let after = pages(&api, &texts).await;
        assert_eq!(texts.found_in(after.as_bytes()), Vec::<&str>::new());
        let friend = api.operator("/member/get", json!({"id": 442})).await;
        assert_eq!(other.found_in(friend.body.to_string().as_bytes()).len(), 5, "others stay readable");
        assert_eq!(files_with(&home, leaks).await, Vec::<PathBuf>::new());
        let macs = "SELECT request_mac FROM directory_receipts
                    WHERE subject_id = 439 AND operation IN ('/member/add', '/member/edit') AND request_mac <> ''";
        assert_eq!(home.sql(macs).await.unwrap(), Vec::<String>::new(), "no fingerprint of what was asked of him is left");
        let away = taken_away(&home).await;
        assert!(away.iter().any(|bytes| holds(bytes, &title)), "what is not personal is found");
        assert!(!away.iter().any(|bytes| leaks(bytes)), "an export or a backup");
        if engine == Engine::Sqlite {
            assert_eq!(std::fs::metadata(home.path().join("ledger.db-wal")).unwrap().len(), 0, "the WAL is cut");
        }
        let keys = PersonKeys::read(&home.person_keys_file()).unwrap().unwrap();
        assert!(keys.key(439).is_none() && keys.key(442).is_some());
        server.kill().await;

        // And again by the next server.
        let server = Server::start_talkative(&home, &log).await;
        let api = Api::new(&home, &server);
        let again = api.keyed(Caller::Operator, "erase-439", "/member/erase", json!({"id": 439, "reason": "會員要求"})).await;
        assert_eq!((again.replayed(), again.ok()), (true, reply.ok()));
        assert_eq!(texts.found_in(pages(&api, &texts).await.as_bytes()), Vec::<&str>::new());
        let new = api.operator("/member/add", json!({"id": 439, "nickname": "新"})).await;
        assert_eq!(new.code(), 401, "his id is not given again");
        server.kill().await;
    }

    async fn a_search_finds_who_begins_so_whatever_its_length(engine: Engine) {
        let world = World::empty(engine).await;
        let mut members = Vec::new();
        // More than one look takes, most of them alike.
        for number in 0..260_i64 {
            let member = directory::Member {
                id: number + 1,
                phone: if number % 50 == 0 { format!("1380000{number:04}") } else { format!("1390000{number:04}") },
                member_card: format!("880012{number:06}"),
                member_name: ["王小明", "王", "歐陽小美", ""][(number % 4) as usize].to_owned(),
                nickname: format!("n{}", number % 7),
                shop_id: number % 2,
                ..directory::Member::default()
            };
            let _ = directory::add_member(world.store(), world.ledger.seal(), &member, None).await.unwrap();
            members.push(member);
        }
        let of = |phone: &str, card: &str, name: &str, shop_id| Search {
            phone: phone.to_owned(),
            member_card: card.to_owned(),
            name: name.to_owned(),
            shop_id,
            ..Search::default()
        };
        let searches = [
            of("1", "", "", 0), of("138", "", "", 0), of("1380", "", "", 0), of("138000", "", "", 1), of("1380000", "", "", 0),
            of("13800000", "", "", 0), of("13900000123", "", "", 0), of("139000001234", "", "", 0), of("", "88", "", 0),
            of("", "880012", "", 0), of("", "8800120002", "", 0), of("", "880012000200", "", 0), of("", "", "王", 0),
            of("", "", "王小", 1), of("", "", "歐陽小美", 0), of("", "", "歐陽小美人", 0), of("", "", "n3", 0),
            of("1390", "8800", "王", 1), of("2", "", "", 0),
        ];
        for search in searches {
            let fits = |member: &&directory::Member| {
                member.phone.starts_with(&search.phone)
                    && member.member_card.starts_with(&search.member_card)
                    && (member.member_name.starts_with(&search.name) || member.nickname.starts_with(&search.name))
                    && (search.shop_id == 0 || member.shop_id == search.shop_id)
            };
            let expected: Vec<i64> = members.iter().rev().filter(fits).map(|member| member.id).collect();
            let list = async |slice| {
                let found = directory::members(world.store(), world.ledger.seal(), &search, slice).await.unwrap();
                found.iter().map(|member| member.id).collect::<Vec<_>>()
            };
            assert_eq!(list(Slice::All).await, expected, "{search:?}");
            let page = |page: usize| expected.iter().skip((page - 1) * 7).take(7).copied().collect::<Vec<_>>();
            for number in 1..4 {
                assert_eq!(list(Slice::Page { page: number as i64, limit: 7 }).await, page(number), "{search:?}");
            }
            let behind = expected.iter().filter(|id| **id < 100).take(5).copied().collect::<Vec<_>>();
            assert_eq!(list(Slice::Before { id: 100, limit: 5 }).await, behind, "{search:?}");
        }
        world.close().await;
    }

    async fn an_edit_moves_what_a_member_is_found_by(engine: Engine) {
        let world = World::with_people(engine).await;
        let tokens_before = tokens(&world.home).await;
        let edit = |phone: &str| json!({"id": 439, "phone": phone, "member_name": "王小明"});
        world.operator("/member/edit", edit("13812345678")).await.ok();
        world.operator("/member/edit", edit("13999999999")).await.ok();
        assert_eq!(found(&world, json!({"phone": "1381"})).await, Vec::<i64>::new());
        assert_eq!(found(&world, json!({"phone": "13999999"})).await, [439]);
        assert_eq!(found(&world, json!({"name": "小明"})).await, [439], "the nickname that was not edited");
        assert_eq!(tokens(&world.home).await, tokens_before + 2 + 1);
        world.operator("/member/edit", json!({"id": 439, "phone": "", "member_name": ""})).await.ok();
        assert_eq!(tokens(&world.home).await, tokens_before);
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        assert_eq!(tokens(&world.home).await, tokens_before - 1, "only those of 442 are left");
        world.close().await;
    }

    async fn an_erasure_that_ended_behind_its_event_is_finished_at_the_next_start(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/member/edit", json!({"id": 439, "phone": "13812345678"})).await.ok();
        world.ledger.execute::<Member>(439, &erase(439), &meta(&world)).await.unwrap();
        let home = world.close().await;
        let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
        assert!(world.ledger.seal().keys().key(439).is_some());
        erasure::begin(&world.ledger).await.unwrap();
        assert!(world.ledger.seal().keys().key(439).is_none());
        let row = world.operator("/member/get", json!({"id": 439})).await;
        assert_eq!((&row.ok()["state"], &row.ok()["phone"]), (&json!(0), &json!("")));
        assert_eq!(tokens(&world.home).await, 1, "that of 442 is left");
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_destroyed_key_without_an_event_is_told_to_the_log_at_the_next_start(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/member/edit", json!({"id": 439, "phone": "13812345678"})).await.ok();
        world.ledger.seal().keys().destroy(&[439, 100_000]).unwrap();
        let list = world.operator("/member/list", json!({})).await;
        assert_eq!(list.ok().as_array().unwrap().len(), 2, "a row that cannot be opened is no error");
        let home = world.close().await;
        let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
        erasure::begin(&world.ledger).await.unwrap();
        let (member, version) = world.ledger.load::<Member>(439).await.unwrap();
        assert_eq!((member.erased.unwrap().at_ms, version), (NOON, 1));
        assert_eq!(world.ledger.load::<Member>(100_000).await.unwrap().1, 0, "nobody there");
        let row = world.operator("/member/get", json!({"id": 439})).await;
        assert_eq!((&row.ok()["state"], &row.ok()["wechat_user"]["nickname"]), (&json!(0), &json!("")));
        assert_eq!(tokens(&world.home).await, 1, "that of 442 is left");
        erasure::begin(&world.ledger).await.unwrap();
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn killed_at_any_instant_an_erasure_happened_whole_or_not_at_all(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        for number in 0..8_i64 {
            let api = Api::new(&home, &server);
            let id = 1_000 + number;
            api.operator("/member/add", json!({"id": id, "nickname": "小明", "phone": "13812345678"})).await.ok();
            let erasing = tokio::spawn({
                let api = api.clone();
                async move { api.try_call(Caller::Operator, None, "/member/erase", &json!({"id": id, "reason": "x"})).await }
            });
            let millis = u64::from_be_bytes(coupon_ledger::value::random()) % 30;
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            server.kill().await;
            let answered = matches!(erasing.await.unwrap(), Ok(reply) if reply.code() == 0);
            server = Server::start(&home, &[]).await;
            let api = Api::new(&home, &server);
            let row = api.operator("/member/get", json!({"id": id})).await.ok().clone();
            let sql = format!("SELECT event_type FROM events WHERE aggregate_type = 'member' AND aggregate_id = '{id}'");
            let erased = !home.sql(&sql).await.unwrap().is_empty();
            assert!(erased || !answered, "{id} was answered");
            let keys = PersonKeys::read(&home.person_keys_file()).unwrap().unwrap();
            assert_eq!(keys.key(id).is_none(), erased, "{id}");
            let shown = if erased { (json!(0), json!("")) } else { (json!(1), json!("13812345678")) };
            assert_eq!((row["state"].clone(), row["phone"].clone()), shown, "{id}");
        }
        server.kill().await;
    }

    async fn an_erasure_whose_key_cannot_be_destroyed_is_not_acknowledged(engine: Engine) {
        let world = World::with_people(engine).await;
        let lock = world.home.path().join("person.keys.lock");
        std::fs::remove_file(&lock).unwrap();
        std::fs::create_dir(&lock).unwrap();
        let erase = async || {
            world.keyed(Caller::Operator, "erase-439", "/member/erase", json!({"id": 439, "reason": "會員要求"})).await
        };
        assert_eq!(erase().await.code(), 9002);
        assert_eq!(erase().await.code(), 9002);
        std::fs::remove_dir(&lock).unwrap();
        let reply = erase().await;
        assert_eq!((reply.replayed(), &reply.ok()["id"]), (true, &json!(439)));
        assert!(world.ledger.seal().keys().key(439).is_none());
        world.close().await;
    }

    async fn whom_was_erased_writes_no_text_any_more(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        let review = json!({"id": id, "evaluation": "好", "score": 5});
        world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
        let (coupon, _) = world.ledger.load::<Coupon>(id).await.unwrap();
        assert_eq!(coupon.review.unwrap().score, 5);
        assert_eq!(world.home.sql("SELECT text FROM reviews").await.unwrap(), Vec::<String>::new());
        let edit = MemberEdit { phone: Some("138".to_owned()), ..MemberEdit::default() };
        let edited = directory::edit_member(world.store(), world.ledger.seal(), 439, &edit, NOON, None).await.unwrap();
        assert_eq!(edited, Edited::Erased);
        world.close().await;
    }

    async fn texts_from_before_there_were_keys_come_under_them(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        world.call(MEMBER, "/client/evaluacoupon", json!({"id": id, "evaluation": "好", "score": 5})).await.ok();
        let texts = Texts::new();
        let Texts { phone, member_card, member_name, nickname, headimgurl, review } = &texts;
        for sql in [
            format!(
                "UPDATE members SET phone = '{phone}', member_card = '{member_card}', member_name = '{member_name}',
                   nickname = '{nickname}', headimgurl = '{headimgurl}' WHERE member_id = 439"
            ),
            format!("UPDATE reviews SET text = '{review}', salt = 'salt'"),
            format!("{} {}", crate::harness::INSERT_MEMBERS, (2_000..2_450).map(|id| format!("({id}, 'n{id}', '', '', '', '', 0, 0, 0, 0, 0)")).collect::<Vec<_>>().join(", ")),
            "UPDATE members SET erased_at_ms = 5000, nickname = '', headimgurl = '' WHERE member_id = 442".to_owned(),
            "INSERT INTO erasures (member_id, erased_by, at_ms, reason) VALUES (442, 'operator', 5000, '早')".to_owned(),
        ] {
            world.home.sql(&sql).await.unwrap();
        }
        let pages = async || {
            let member = world.operator("/member/get", json!({"id": 439})).await.body.to_string();
            member + &world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await.body.to_string()
        };
        let before = pages().await;
        assert_eq!(texts.found_in(before.as_bytes()), texts.all(), "readable as they are");
        erasure::begin(&world.ledger).await.unwrap();
        assert_eq!(pages().await, before);
        assert_eq!(found(&world, json!({"phone": phone})).await, [439]);
        assert_eq!(found(&world, json!({"name": "n2449"})).await, [2_449]);
        let plain = "SELECT nickname FROM members WHERE nickname NOT LIKE 'sealed:1:%' AND nickname <> ''
                     UNION ALL SELECT text FROM reviews WHERE text NOT LIKE 'sealed:1:%' OR salt NOT LIKE 'sealed:1:%'";
        assert_eq!(world.home.sql(plain).await.unwrap(), Vec::<String>::new());
        let (member, _) = world.ledger.load::<Member>(442).await.unwrap();
        let erased = member.erased.unwrap();
        assert_eq!((erased.at_ms, erased.reason.as_str()), (5_000, "早"));
        if engine == Engine::Sqlite {
            let leaks = |bytes: &[u8]| !texts.found_in(bytes).is_empty();
            assert_eq!(files_with(&world.home, leaks).await, Vec::<PathBuf>::new(), "what was there is written over");
        }
        world.close().await;
    }

    async fn a_key_file_that_does_not_fit_is_refused_in_a_sentence(engine: Engine) {
        let home = World::with_people(engine).await.close().await;
        let path = home.person_keys_file();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(home.path().join("secret.key"), "2a".repeat(32)).unwrap();
        let refused = async || {
            let mut command = program(&home);
            let output = command.args(["serve", "--listen", "127.0.0.1:0"]).heard().await;
            assert_eq!(output.status.code(), Some(2));
            let said = String::from_utf8(output.stderr).unwrap();
            let last = said.lines().last().unwrap().to_owned();
            last.replace(path.to_str().unwrap(), "person.keys")
        };
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            refused().await,
            "coupon-ledger: there are no person keys at person.keys, and without them no member's name or telephone number can \
             be read: put back the copy that is kept apart from the database, or name the file with --person-keys-file"
        );
        assert!(!path.exists(), "none is made in its place");
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(
            refused().await,
            "coupon-ledger: person.keys is damaged (its end is missing or it was changed): put back the copy of it that is \
             kept apart from the database"
        );
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(refused().await.contains("is damaged (it is no text)"));
        std::fs::remove_file(&path).unwrap();
        let other = PersonKeys::make(&path).unwrap();
        let said = refused().await;
        let expected = format!("holds the person keys of another ledger ({}, not ", other.id());
        assert!(said.contains(&expected), "{said}");
        std::fs::write(&path, &whole).unwrap();
        Server::start(&home, &[]).await.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_destroys_the_key_in_its_own_file() {
    let first = World::with_people(Engine::Postgres).await;
    let url = first.home.database_url.clone().unwrap();
    let (beside, away) = (first.home.beside(url.clone()), first.home.beside(url));
    let second = World::open(beside, first.clock.clone(), Zone::default()).await;
    let caught_up = erasure::begin(&second.ledger).await.unwrap();
    first.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
    assert!(second.ledger.seal().keys().key(439).is_some());
    let row = second.operator("/member/get", json!({"id": 439})).await;
    assert_eq!(row.ok()["wechat_user"]["nickname"], "", "the row is cleared for all");
    let last = erasure::catch_up(&second.ledger, caught_up).await.unwrap();
    let filed = PersonKeys::read(&second.home.person_keys_file()).unwrap().unwrap();
    for keys in [second.ledger.seal().keys(), &filed] {
        assert_eq!(keys.destroyed(), [439]);
    }
    assert_eq!(erasure::catch_up(&second.ledger, last).await.unwrap(), last);
    second.close().await;

    // One that was away does so before it serves, and one that serves within seconds.
    std::fs::write(away.path().join("secret.key"), "2a".repeat(32)).unwrap();
    let server = Server::start(&away, &[]).await;
    let destroyed = || PersonKeys::read(&away.person_keys_file()).unwrap().unwrap().destroyed();
    assert_eq!(destroyed(), [439]);
    first.operator("/member/erase", json!({"id": 442, "reason": "會員要求"})).await.ok();
    until("the server that runs has destroyed the key as well", async || destroyed() == [439, 442]).await;
    server.kill().await;
    first.close().await;
}
