//! The demo world: the manual's own sample data and a few hundred coupons in every state. Made only through commands,
//! at the times at which they would have happened, so that it has a history like any other.

use crate::clock::{Zone, day_number};
use crate::coupon::{Coupon, CouponCommand, Origin, Redeemer, Source};
use crate::definition::{Definition, DefinitionCommand, IssueLimit, Kind, Offer, Terms, Validity};
use crate::directory::{self, Employee, Level, Member};
use crate::entity::Entity;
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::shop::{Shop, ShopCommand, ShopDetails};
use crate::store::{Store, StoreError};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// 2018-11-24 10:31:41 in Shanghai: when the manual's sample coupon was issued.
const SAMPLE_MS: i64 = 1_543_026_701_000;

/// What its events name as their request.
const REQUEST_ID: &str = "demo";

/// The member whose pages the manual's samples show.
const SAMPLE_MEMBER: i64 = 439;
/// The member to whom he gave a coupon.
const SAMPLE_RECEIVER: i64 = 442;

/// The picture in the manual's sample.
const SAMPLE_PICTURE: &str = "http://thirdwx.qlogo.cn/mmopen/ajNVdqHZLLChaQIy7oIhickkOCPaSkujDXcWVnBjeqZNg23vR1l6wa1Ht94BzW627MpOTreXxgdeV0MW3zsHTGw/132";

/// Loads the demo world into an empty ledger; false when it was not empty.
pub async fn load(ledger: &Ledger) -> Result<bool, ExecuteError> {
    let events = ledger.store().events_after(0, 1).await?;
    if !events.is_empty() || directory::member(ledger.store(), ledger.seal(), SAMPLE_MEMBER).await?.is_some()
    {
        return Ok(false);
    }
    let demo = Demo { ledger, zone: ledger.zone() };
    demo.people().await?;
    demo.samples().await?;
    demo.recent(ledger.clock().now_ms()).await?;
    Ok(true)
}

/// Whether a ledger began with the demo world.
pub async fn is_loaded(store: &Store) -> Result<bool, StoreError> {
    let first = store.events_after(0, 1).await?;
    let metadata = first.first().map(|event| serde_json::from_str(&event.metadata).unwrap_or_default());
    let metadata: serde_json::Value = metadata.unwrap_or_default();
    let system = Caller::System.to_string();
    let [by, request_id] =
        ["caller", "request_id"].map(|name| metadata.get(name).and_then(|value| value.as_str()));
    Ok(by == Some(&system) && request_id == Some(REQUEST_ID))
}

struct Demo<'a> {
    ledger: &'a Ledger,
    zone: Zone,
}

impl Demo<'_> {
    async fn run<A: Entity>(
        &self,
        caller: Caller,
        at_ms: i64,
        id: i64,
        command: A::Command,
    ) -> Result<A, ExecuteError> {
        let at = self.zone.moment(at_ms);
        let meta = Meta { caller, at, request_id: REQUEST_ID.to_owned(), receipt: None, job_id: None };
        Ok(self.ledger.execute::<A>(id, &command, &meta).await?.state)
    }

    async fn people(&self) -> Result<(), ExecuteError> {
        let names = ["小明", "阿芳", "志強", "美玲", "家豪", "淑芬", "俊傑", "雅婷", "建國", "麗華"];
        let joined_at_ms = SAMPLE_MS - 30 * DAY_MS;
        for (place, id) in (SAMPLE_MEMBER..SAMPLE_MEMBER + 40).enumerate() {
            let name = names.get(place % names.len()).copied().unwrap_or_default();
            let (nickname, headimgurl) = match id {
                SAMPLE_RECEIVER => ("黃明波", SAMPLE_PICTURE),
                _ => (name, ""),
            };
            let member = Member {
                id,
                nickname: nickname.to_owned(),
                headimgurl: headimgurl.to_owned(),
                level_id: 1 + (id % 3),
                card_end: day_number(self.zone.moment(self.ledger.clock().now_ms() + 200 * DAY_MS).day),
                joined_at_ms,
                ..Member::default()
            };
            let _ = directory::add_member(self.ledger.store(), self.ledger.seal(), &member, None).await?;
        }
        for (id, name) in [(1, "普通會員"), (2, "銀卡會員"), (3, "金卡會員")] {
            let level = Level { id, name: name.to_owned(), ..Level::default() };
            let _ = directory::add_level(self.ledger.store(), &level, None).await?;
        }
        for (name, address) in [("總店", "天河路1號"), ("人民路店", "人民路88號"), ("舊倉店", "沿江路9號")]
        {
            let id = self.ledger.next_id("shop", true).await?;
            let details = ShopDetails {
                name: name.to_owned(),
                phone: "020-88888888".to_owned(),
                address: address.to_owned(),
            };
            let open = ShopCommand::Open { details: details.clone(), partner: false, employee_id: 1000 };
            self.run::<Shop>(Caller::System, joined_at_ms, id, open).await?;
            if name == "舊倉店" {
                let close = ShopCommand::Edit { details, open: false, partner: false, employee_id: 1000 };
                self.run::<Shop>(Caller::System, joined_at_ms + 1, id, close).await?;
            }
        }
        for (id, shop_id) in [(1000, 1), (1001, 2)] {
            let employee =
                Employee { id, name: format!("店員{id}"), shop_id, active: true, ..Employee::default() };
            let _ = directory::add_employee(self.ledger.store(), &employee, None).await?;
        }
        Ok(())
    }

    async fn define(&self, at_ms: i64, offer: Offer, stock: Option<i64>) -> Result<i64, ExecuteError> {
        let id = self.ledger.next_id("definition", true).await?;
        let define =
            DefinitionCommand::Define { offer: Box::new(offer), stock, employee_id: 1000, at_most: None };
        self.run::<Definition>(Caller::System, at_ms, id, define).await?;
        Ok(id)
    }

    async fn issue(
        &self,
        at_ms: i64,
        definition_id: i64,
        member_id: i64,
        source: Source,
    ) -> Result<i64, ExecuteError> {
        let id = self.ledger.next_id("coupon", false).await?;
        let employee_id = if source == Source::OneToOne { 1000 } else { 0 };
        let issue =
            CouponCommand::Issue { definition_id, member_id, origin: Origin::of(source, employee_id) };
        self.run::<Coupon>(Caller::System, at_ms, id, issue).await?;
        Ok(id)
    }

    async fn give(&self, at_ms: i64, id: i64, member_id: i64) -> Result<i64, ExecuteError> {
        let give = CouponCommand::Give { member_id, lapse_after_ms: DAY_MS };
        let state = self.run::<Coupon>(Caller::Member(member_id), at_ms, id, give).await?;
        let gift = state.gift.unwrap_or_default();
        Ok(self.ledger.secrets().gift_codes().code(id, gift.number, &gift.code_key))
    }

    async fn receive(&self, at_ms: i64, id: i64, member_id: i64, code: i64) -> Result<(), ExecuteError> {
        let receive = CouponCommand::Receive { member_id, code };
        self.run::<Coupon>(Caller::Member(member_id), at_ms, id, receive).await.map(|_| ())
    }

    async fn redeem(
        &self,
        at_ms: i64,
        id: i64,
        redeemer: Redeemer,
        shop_id: i64,
    ) -> Result<i64, ExecuteError> {
        let redemption_id = self.ledger.next_id("redemption", false).await?;
        let caller = match redeemer {
            Redeemer::Member(id) => Caller::Member(id),
            Redeemer::Employee(id) | Redeemer::ByCode { employee_id: id, .. } => Caller::Employee(id),
        };
        let redeem = CouponCommand::Redeem { redeemer, shop_id, redemption_id, audit_url: None };
        self.run::<Coupon>(caller, at_ms, id, redeem).await?;
        Ok(redemption_id)
    }

    async fn review(&self, at_ms: i64, id: i64, member_id: i64, text: &str) -> Result<(), ExecuteError> {
        let review = CouponCommand::Evaluate {
            member_id,
            score: 5,
            text: text.to_owned(),
            salt: crate::value::hex(&crate::value::random::<16>()),
        };
        self.run::<Coupon>(Caller::Member(member_id), at_ms, id, review).await.map(|_| ())
    }

    /// The coupons of the manual's page, in November 2018: 1 given to 442, 2 used and reviewed, 3 left to expire.
    async fn samples(&self) -> Result<(), ExecuteError> {
        let sample = |start: (u32, u32), end: (i32, u32, u32)| {
            let day =
                |year, month, day| chrono::NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default();
            let validity =
                Validity::Fixed { start: day(2018, start.0, start.1), end: day(end.0, end.1, end.2) };
            let terms = Terms {
                kind: Kind::Exchange,
                title: "測試電子券測試電子券測試".to_owned(),
                deduction_cents: 1_000,
                weekdays: vec![1, 2, 3],
                givable: true,
                rules: "我是使用規則".to_owned(),
                ..Terms::default()
            };
            offer(terms, validity)
        };
        let first = self.define(SAMPLE_MS - 20 * DAY_MS, sample((11, 2), (2018, 11, 24)), None).await?;
        let edit = |offer| DefinitionCommand::Edit { offer: Box::new(offer), employee_id: 1000 };
        let given = self.issue(SAMPLE_MS, first, SAMPLE_MEMBER, Source::MassSend).await?;
        let later = edit(sample((11, 2), (2018, 12, 31)));
        self.run::<Definition>(Caller::System, SAMPLE_MS, first, later).await?;
        let used = self.issue(SAMPLE_MS, first, SAMPLE_MEMBER, Source::MassSend).await?;
        let later = edit(sample((11, 1), (2019, 1, 1)));
        self.run::<Definition>(Caller::System, SAMPLE_MS, first, later).await?;
        self.issue(SAMPLE_MS, first, SAMPLE_MEMBER, Source::MassSend).await?;

        let view = CouponCommand::View { member_id: SAMPLE_MEMBER };
        self.run::<Coupon>(Caller::Member(SAMPLE_MEMBER), SAMPLE_MS, given, view).await?;
        let code = self.give(SAMPLE_MS, given, SAMPLE_MEMBER).await?;
        self.receive(SAMPLE_MS + HOUR_MS, given, SAMPLE_RECEIVER, code).await?;
        self.redeem(1_543_290_243_000, used, Redeemer::Employee(1001), 2).await?;
        self.review(1_543_294_087_000, used, SAMPLE_MEMBER, "非常給力").await
    }

    /// Definitions of every kind, and ten coupons for each member over the last weeks, one in each state.
    async fn recent(&self, now_ms: i64) -> Result<(), ExecuteError> {
        let before = |days: i64| now_ms - days * DAY_MS;
        let cash = |title: &str, cents: i64| Terms {
            title: title.to_owned(),
            deduction_cents: cents,
            minimum_order_cents: cents * 10,
            givable: true,
            stackable: true,
            self_redeemable: true,
            rules: "每單限用一張".to_owned(),
            ..Terms::default()
        };
        let exchange = |title: &str| Terms {
            kind: Kind::Exchange,
            title: title.to_owned(),
            givable: true,
            self_redeemable: true,
            rules: "憑券兌換".to_owned(),
            ..Terms::default()
        };
        let valid_days = |valid_days| Validity::FromReceipt { starts_after_days: 0, valid_days };
        let claimable = Offer { claimable: true, ..offer(cash("十元現金券", 1_000), valid_days(365)) };
        let ten = self.define(before(70), claimable, None).await?;
        let drink = self.define(before(70), offer(exchange("飲品兌換券"), valid_days(365)), None).await?;
        let short = self.define(before(70), offer(cash("七日券", 500), valid_days(7)), None).await?;
        let card =
            self.define(before(70), offer(cash("會員專享券", 2_000), Validity::MemberCard), None).await?;
        let scan = Terms { scan_required: true, shop_ids: vec![1], ..exchange("到店禮") };
        self.define(before(70), offer(scan, valid_days(365)), None).await?;
        let once = Offer {
            issue_limit: IssueLimit::OneAtATime,
            claimable: true,
            ..offer(cash("每期一張", 300), valid_days(30))
        };
        self.define(before(70), once, None).await?;
        let levels = Offer {
            issue_limit: IssueLimit::Levels,
            level_ids: vec![3],
            ..offer(cash("金卡券", 5_000), valid_days(60))
        };
        self.define(before(70), levels, None).await?;
        let few = self.define(before(70), offer(cash("限量券", 8_800), valid_days(90)), Some(2)).await?;
        let ended = self.define(before(70), offer(cash("已停用券", 100), valid_days(30)), None).await?;
        let off = DefinitionCommand::ChangeState { on: false, employee_id: 1000 };
        self.run::<Definition>(Caller::System, before(69), ended, off).await?;
        for member_id in [SAMPLE_MEMBER, SAMPLE_RECEIVER] {
            self.issue(before(60), few, member_id, Source::OneToOne).await?;
        }
        for member_id in SAMPLE_MEMBER..SAMPLE_MEMBER + 40 {
            let next = if member_id == SAMPLE_MEMBER + 39 { SAMPLE_MEMBER } else { member_id + 1 };
            self.member_history(member_id, next, now_ms, [ten, drink, short, card]).await?;
        }
        Ok(())
    }

    async fn member_history(
        &self,
        member_id: i64,
        next: i64,
        now_ms: i64,
        [ten, drink, short, card]: [i64; 4],
    ) -> Result<(), ExecuteError> {
        // Minutes apart, so that no two members do everything in the same second.
        let before = |days: i64| now_ms - days * DAY_MS - (member_id % 60) * 60_000;
        let caller = Caller::Member(member_id);
        let me = Redeemer::Member(member_id);
        // In hand, never opened.
        self.issue(before(20), ten, member_id, Source::MassSend).await?;
        // In hand, opened.
        let id = self.issue(before(19), card, member_id, Source::MemberLevel).await?;
        self.run::<Coupon>(caller, before(18), id, CouponCommand::View { member_id }).await?;
        // Used by himself, and reviewed by some.
        let id = self.issue(before(30), drink, member_id, Source::OneToOne).await?;
        self.redeem(before(10), id, me, 1 + member_id % 2).await?;
        if member_id % 2 == 1 {
            self.review(before(9), id, member_id, "味道很好，下次再來").await?;
        }
        // Used at the counter and taken back.
        let id = self.issue(before(15), ten, member_id, Source::OneToOne).await?;
        let redemption_id = self.redeem(before(5), id, Redeemer::Employee(1000), 1).await?;
        let reverse = CouponCommand::Reverse {
            redemption_id,
            employee_id: 1000,
            reason: "按錯".to_owned(),
            within_ms: DAY_MS,
        };
        self.run::<Coupon>(Caller::Employee(1000), before(5) + HOUR_MS, id, reverse).await?;
        // Given and received.
        let id = self.issue(before(14), drink, member_id, Source::OneToOne).await?;
        let code = self.give(before(8), id, member_id).await?;
        self.receive(before(8) + HOUR_MS, id, next, code).await?;
        // Given, tried with a wrong code, and taken back.
        let id = self.issue(before(13), ten, member_id, Source::MassSend).await?;
        let code = self.give(before(4), id, member_id).await?;
        let wrong = if code == 999_999 { 100_000 } else { code + 1 };
        self.receive(before(4) + HOUR_MS, id, next, wrong).await?;
        let withdraw = CouponCommand::Withdraw { member_id };
        self.run::<Coupon>(caller, before(4) + 2 * HOUR_MS, id, withdraw).await?;
        // Given and lapsed.
        let id = self.issue(before(12), ten, member_id, Source::MassSend).await?;
        self.give(before(3), id, member_id).await?;
        self.run::<Coupon>(Caller::System, before(1), id, CouponCommand::Settle).await?;
        // Waiting for its receiver.
        let id = self.issue(before(11), drink, member_id, Source::MassSend).await?;
        self.give(now_ms - HOUR_MS, id, member_id).await?;
        // Expired.
        let id = self.issue(before(40), short, member_id, Source::MassSend).await?;
        self.run::<Coupon>(Caller::System, before(30), id, CouponCommand::Settle).await?;
        // Voided.
        let id = self.issue(before(7), ten, member_id, Source::OneToOne).await?;
        let void = CouponCommand::Void { employee_id: 1000, reason: "發錯".to_owned() };
        self.run::<Coupon>(Caller::Operator, before(6), id, void).await?;
        Ok(())
    }
}

/// An offer without limits.
fn offer(terms: Terms, validity: Validity) -> Offer {
    Offer {
        terms,
        validity,
        issue_limit: IssueLimit::Unlimited,
        get_limit: 0,
        level_ids: Vec::new(),
        claimable: false,
    }
}
