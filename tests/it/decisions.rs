//! Given/when/then for every command and every refusal of the three aggregates: what a decision says, without an engine.

use std::sync::Arc;

use chrono::NaiveDate;
use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::{
    Coupon, CouponCommand, CouponEvent, GIFT_TRIES, Issue, Origin, Redeemer, Source,
};
use coupon_ledger::definition::{
    Definition, DefinitionCommand, DefinitionEvent, IssueLimit, Kind, Offer, Terms, Validity,
};
use coupon_ledger::facts::{Facts, Membership};
use coupon_ledger::refusal::{Refusal, Wrong};
use coupon_ledger::secrets::{Secrets, review_hash};
use coupon_ledger::shop::{Shop, ShopCommand, ShopDetails, ShopEvent};
use coupon_ledger::value::MAX_ID;
use cqrs_es::test::{AggregateResultValidator, TestFramework};

use crate::harness::{DAY, HOUR, NOON};

pub const COUPON: i64 = 7;
pub const SHOP: i64 = 3;
const EMPLOYEE_ID: i64 = 1000;
/// Giver and receiver.
const ANNA: i64 = 439;
const BEN: i64 = 442;
const STRANGER: i64 = 500;

pub fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn secrets() -> Secrets {
    Secrets::from_root([42; 32])
}

fn code(gift: u32) -> i64 {
    let (secrets, key_id) = (secrets(), secrets().gift_codes().key_id());
    secrets.gift_codes().code(COUPON, gift, &key_id)
}

/// The facts of a command at an instant: nothing is known but shop 3, open.
pub fn facts_at(ms: i64) -> Facts {
    let zone = Zone::default();
    let mut facts = Facts::at(COUPON, zone.moment(ms), zone, secrets().gift_codes().clone());
    facts.shop = Some(open_shop().into());
    facts
}

fn facts() -> Facts {
    facts_at(NOON)
}

fn open_shop() -> Shop {
    Shop { details: Some(shop_details("總店")), open: true, audit_key: 1, partner: false, employee_id: 0 }
}

pub fn terms() -> Terms {
    Terms {
        kind: Kind::Cash,
        title: "十元券".to_owned(),
        deduction_cents: 1_000,
        givable: true,
        self_redeemable: true,
        ..Terms::default()
    }
}

/// Issued to Anna now, valid today and tomorrow.
pub fn issue() -> Issue {
    let zone = Zone::default();
    let (start_date, end_date) = (day("2026-11-23"), day("2026-11-24"));
    Issue {
        definition_id: 1,
        terms: terms(),
        member_id: ANNA,
        start_date,
        end_date,
        starts_at_ms: zone.day_starts_at_ms(start_date),
        ends_at_ms: zone.day_ends_at_ms(end_date),
        source: Source::OneToOne,
        source_id: 0,
        employee_id: EMPLOYEE_ID,
        order_id: 0,
        goods_id: 0,
        at_ms: NOON,
    }
}

pub fn issued(change: impl FnOnce(&mut Issue)) -> CouponEvent {
    let mut issue = issue();
    change(&mut issue);
    CouponEvent::Issued(Box::new(issue))
}

pub fn plain() -> CouponEvent {
    issued(|_| {})
}

pub fn given(gift: u32, member_id: i64) -> CouponEvent {
    given_at(gift, member_id, NOON)
}

fn given_at(gift: u32, member_id: i64, at_ms: i64) -> CouponEvent {
    let code_key = secrets().gift_codes().key_id();
    CouponEvent::Given { gift, member_id, code_key, lapses_at_ms: at_ms + DAY, at_ms }
}

pub fn rejected(gift: u32) -> CouponEvent {
    CouponEvent::GiftCodeRejected { gift, member_id: STRANGER, at_ms: NOON }
}

fn locked() -> Vec<CouponEvent> {
    let mut events = vec![plain(), given(1, ANNA)];
    events.extend((0..GIFT_TRIES).map(|_| rejected(1)));
    events
}

pub fn received(gift: u32, giver_id: i64, member_id: i64) -> CouponEvent {
    CouponEvent::Received { gift, giver_id, member_id, at_ms: NOON }
}

fn redeemed(member_id: i64) -> CouponEvent {
    redeemed_as(9, member_id, 0)
}

pub fn redeemed_as(redemption_id: i64, member_id: i64, employee_id: i64) -> CouponEvent {
    CouponEvent::Redeemed { redemption_id, member_id, shop_id: SHOP, employee_id, at_ms: NOON }
}

pub fn reversed(redemption_id: i64) -> CouponEvent {
    CouponEvent::RedemptionReversed {
        redemption_id,
        employee_id: EMPLOYEE_ID,
        reason: "按錯".to_owned(),
        at_ms: NOON,
    }
}

pub fn evaluated(member_id: i64) -> CouponEvent {
    CouponEvent::Evaluated { member_id, score: 5, text_hash: review_hash("s", "好"), at_ms: NOON }
}

pub fn voided() -> CouponEvent {
    CouponEvent::Voided { employee_id: EMPLOYEE_ID, reason: "發錯".to_owned(), at_ms: NOON }
}

fn already_used() -> Refusal {
    Refusal::AlreadyUsed { redemption_id: 9, at_ms: NOON, shop_id: SHOP }
}

type Asked = AggregateResultValidator<Coupon>;

fn when(given: Vec<CouponEvent>, command: CouponCommand) -> Asked {
    when_with(facts(), given, command)
}

fn when_at(ms: i64, given: Vec<CouponEvent>, command: CouponCommand) -> Asked {
    when_with(facts_at(ms), given, command)
}

fn when_with(facts: Facts, given: Vec<CouponEvent>, command: CouponCommand) -> Asked {
    TestFramework::<Coupon>::with(facts).given(given).when(command)
}

pub fn redeem(member_id: i64) -> CouponCommand {
    redeem_by(Redeemer::Member(member_id))
}

pub fn redeem_by(redeemer: Redeemer) -> CouponCommand {
    CouponCommand::Redeem { redeemer, shop_id: SHOP, redemption_id: 9, audit_url: None }
}

pub fn give(member_id: i64) -> CouponCommand {
    CouponCommand::Give { member_id, lapse_after_ms: DAY }
}

fn receive(member_id: i64, code: i64) -> CouponCommand {
    CouponCommand::Receive { member_id, code }
}

fn peek(member_id: i64, code: i64) -> CouponCommand {
    CouponCommand::Peek { member_id, code }
}

pub fn evaluate(member_id: i64) -> CouponCommand {
    CouponCommand::Evaluate { member_id, score: 5, text: "好".to_owned(), salt: "s".to_owned() }
}

fn reverse(redemption_id: i64) -> CouponCommand {
    let reason = "按錯".to_owned();
    CouponCommand::Reverse { redemption_id, employee_id: EMPLOYEE_ID, reason, within_ms: DAY }
}

fn void() -> CouponCommand {
    CouponCommand::Void { employee_id: EMPLOYEE_ID, reason: "發錯".to_owned() }
}

/// When the coupon of [`issue`] ends.
fn end() -> i64 {
    issue().ends_at_ms
}

pub mod issuing {
    use super::*;

    pub fn offer() -> Offer {
        Offer {
            terms: terms(),
            validity: Validity::FromReceipt { starts_after_days: 0, valid_days: 2 },
            issue_limit: IssueLimit::Unlimited,
            get_limit: 0,
            level_ids: Vec::new(),
            claimable: true,
        }
    }

    fn definition(change: impl FnOnce(&mut Offer)) -> Definition {
        let mut offer = offer();
        change(&mut offer);
        Definition {
            offer: Some(Box::new(offer)),
            stock: None,
            on: true,
            employee_id: 0,
            defined_at_ms: NOON,
        }
    }

    fn facts_of(definition: Definition) -> Facts {
        let member = Some(Membership { level_id: 1, card_end: Some(day("2026-12-31")) });
        Facts { definition: Some(definition.into()), member, ..facts() }
    }

    fn ask(source: Source) -> CouponCommand {
        CouponCommand::Issue { definition_id: 1, member_id: ANNA, origin: Origin::of(source, EMPLOYEE_ID) }
    }

    fn issue_from(definition: Definition) -> Asked {
        when_with(facts_of(definition), Vec::new(), ask(Source::OneToOne))
    }

    fn refused(facts: Facts, why: Refusal) {
        when_with(facts, Vec::new(), ask(Source::OneToOne)).then_expect_error(why);
    }

    #[test]
    fn a_coupon_is_issued_with_the_terms_and_days_of_its_definition() {
        issue_from(definition(|_| {})).then_expect_events(vec![plain()]);
    }

    #[test]
    fn fixed_days_are_those_of_the_definition_even_before_they_start() {
        let (start, end) = (day("2026-12-01"), day("2026-12-31"));
        let zone = Zone::default();
        let expected = issued(|issue| {
            (issue.start_date, issue.end_date) = (start, end);
            issue.starts_at_ms = zone.day_starts_at_ms(start);
            issue.ends_at_ms = zone.day_starts_at_ms(day("2027-01-01"));
        });
        issue_from(definition(|offer| offer.validity = Validity::Fixed { start, end }))
            .then_expect_events(vec![expected]);
    }

    #[test]
    fn days_counted_from_receipt_may_begin_later() {
        let zone = Zone::default();
        let expected = issued(|issue| {
            (issue.start_date, issue.end_date) = (day("2026-11-26"), day("2026-11-30"));
            issue.starts_at_ms = zone.day_starts_at_ms(day("2026-11-26"));
            issue.ends_at_ms = zone.day_starts_at_ms(day("2026-12-01"));
        });
        let validity = Validity::FromReceipt { starts_after_days: 3, valid_days: 5 };
        issue_from(definition(|offer| offer.validity = validity)).then_expect_events(vec![expected]);
    }

    #[test]
    fn a_coupon_until_the_card_ends_begins_at_receipt() {
        let expected = issued(|issue| {
            issue.end_date = day("2026-12-31");
            issue.ends_at_ms = Zone::default().day_starts_at_ms(day("2027-01-01"));
        });
        issue_from(definition(|offer| offer.validity = Validity::MemberCard))
            .then_expect_events(vec![expected]);
    }

    #[test]
    fn an_id_is_issued_once() {
        let facts = facts_of(definition(|_| {}));
        when_with(facts, vec![plain()], ask(Source::OneToOne)).then_expect_error(Refusal::IdTaken);
    }

    #[test]
    fn an_unknown_definition_issues_nothing() {
        refused(Facts { definition: None, ..facts_of(Definition::default()) }, Refusal::NoSuchDefinition);
        refused(facts_of(Definition::default()), Refusal::NoSuchDefinition);
    }

    #[test]
    fn a_definition_that_is_switched_off_issues_nothing() {
        refused(facts_of(Definition { on: false, ..definition(|_| {}) }), Refusal::NotOnOffer);
    }

    #[test]
    fn a_definition_whose_days_are_over_issues_nothing() {
        let ended =
            |end| definition(|offer| offer.validity = Validity::Fixed { start: day("2026-11-01"), end });
        refused(facts_of(ended(day("2026-11-22"))), Refusal::NotOnOffer);
        let events = issue_from(ended(day("2026-11-23"))).inspect_result().unwrap();
        assert_eq!(events.len(), 1, "the last day itself still counts");
    }

    #[test]
    fn a_card_without_end_or_past_it_is_issued_no_coupon_that_ends_with_it() {
        for card_end in [None, Some(day("2026-11-22"))] {
            let definition = definition(|offer| offer.validity = Validity::MemberCard);
            let member = Some(Membership { level_id: 1, card_end });
            refused(Facts { member, ..facts_of(definition) }, Refusal::NotOnOffer);
        }
    }

    #[test]
    fn only_a_claimable_definition_can_be_claimed() {
        let facts = facts_of(definition(|offer| offer.claimable = false));
        when_with(facts.clone(), Vec::new(), ask(Source::Claimed)).then_expect_error(Refusal::NotOnOffer);
        when_with(facts, Vec::new(), ask(Source::OneToOne)).then_expect_events(vec![plain()]);
        when_with(facts_of(definition(|_| {})), Vec::new(), ask(Source::Claimed))
            .then_expect_events(vec![issued(|issue| issue.source = Source::Claimed)]);
    }

    #[test]
    fn an_unknown_member_is_issued_nothing() {
        refused(Facts { member: None, ..facts_of(definition(|_| {})) }, Refusal::NoSuchMember);
    }

    #[test]
    fn a_definition_for_levels_issues_to_those_levels_only() {
        let for_levels = |level_ids| {
            definition(|offer| (offer.issue_limit, offer.level_ids) = (IssueLimit::Levels, level_ids))
        };
        refused(facts_of(for_levels(vec![2, 3])), Refusal::LevelNotEligible);
        issue_from(for_levels(vec![2, 1])).then_expect_events(vec![plain()]);
    }
}

mod viewing {
    use super::*;

    fn view(member_id: i64) -> CouponCommand {
        CouponCommand::View { member_id }
    }

    fn viewed(member_id: i64) -> CouponEvent {
        CouponEvent::Viewed { member_id, at_ms: NOON }
    }

    #[test]
    fn the_first_opening_is_written_down_once_per_holder() {
        when(vec![plain()], view(ANNA)).then_expect_events(vec![viewed(ANNA)]);
        when(vec![plain(), viewed(ANNA)], view(ANNA)).then_expect_events(vec![]);
        when(vec![plain(), viewed(ANNA), given(1, ANNA), received(1, ANNA, BEN)], view(BEN))
            .then_expect_events(vec![viewed(BEN)]);
    }

    #[test]
    fn a_former_holder_opens_his_frozen_row_without_a_trace() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], view(ANNA)).then_expect_events(vec![]);
    }

    #[test]
    fn a_coupon_that_comes_back_is_unread_again() {
        let there_and_back = vec![
            plain(),
            viewed(ANNA),
            given(1, ANNA),
            received(1, ANNA, BEN),
            given(2, BEN),
            received(2, BEN, ANNA),
        ];
        when(there_and_back, view(ANNA)).then_expect_events(vec![viewed(ANNA)]);
    }

    #[test]
    fn nobody_opens_a_coupon_that_was_never_his() {
        when(vec![plain()], view(BEN)).then_expect_error(Refusal::NoSuchCoupon);
        when(vec![], view(ANNA)).then_expect_error(Refusal::NoSuchCoupon);
    }
}

mod giving {
    use super::*;

    #[test]
    fn a_gift_lapses_after_its_time() {
        when(vec![plain()], give(ANNA)).then_expect_events(vec![given(1, ANNA)]);
    }

    #[test]
    fn a_gift_lapses_with_the_coupons_end_if_that_is_earlier() {
        let at_ms = end() - HOUR;
        let code_key = secrets().gift_codes().key_id();
        let expected = CouponEvent::Given { gift: 1, member_id: ANNA, code_key, lapses_at_ms: end(), at_ms };
        when_at(at_ms, vec![plain()], give(ANNA)).then_expect_events(vec![expected]);
    }

    #[test]
    fn giving_a_pending_gift_again_changes_nothing() {
        when_at(NOON + DAY - 1, vec![plain(), given(1, ANNA)], give(ANNA)).then_expect_events(vec![]);
    }

    #[test]
    fn giving_after_a_lapse_writes_the_lapse_and_a_new_gift() {
        let at_ms = NOON + DAY;
        let lapsed = CouponEvent::GiftLapsed { gift: 1, at_ms };
        let code_key = secrets().gift_codes().key_id();
        let again = CouponEvent::Given { gift: 2, member_id: ANNA, code_key, lapses_at_ms: end(), at_ms };
        when_at(at_ms, vec![plain(), given(1, ANNA)], give(ANNA)).then_expect_events(vec![lapsed, again]);
    }

    #[test]
    fn giving_after_a_withdrawal_is_a_new_gift() {
        let withdrawn = CouponEvent::GiftWithdrawn { gift: 1, at_ms: NOON };
        when(vec![plain(), given(1, ANNA), withdrawn], give(ANNA)).then_expect_events(vec![given(2, ANNA)]);
    }

    #[test]
    fn a_received_coupon_may_be_given_on() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], give(BEN))
            .then_expect_events(vec![given(2, BEN)]);
    }

    #[test]
    fn a_coupon_may_be_given_before_it_starts_but_not_after_its_end() {
        let early = issued(|issue| issue.starts_at_ms = NOON + 1);
        when(vec![early], give(ANNA)).then_expect_events(vec![given(1, ANNA)]);
        when_at(end(), vec![plain()], give(ANNA)).then_expect_error(Refusal::Expired);
    }

    #[test]
    fn nobody_gives_what_was_never_his() {
        when(vec![plain()], give(BEN)).then_expect_error(Refusal::NoSuchCoupon);
        when(vec![], give(ANNA)).then_expect_error(Refusal::NoSuchCoupon);
    }

    #[test]
    fn a_coupon_that_was_given_away_cannot_be_given_by_its_giver() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], give(ANNA))
            .then_expect_error(Refusal::GivenAway);
    }

    #[test]
    fn a_voided_coupon_cannot_be_given() {
        when(vec![plain(), voided()], give(ANNA)).then_expect_error(Refusal::Voided);
    }

    #[test]
    fn a_used_coupon_cannot_be_given() {
        when(vec![plain(), redeemed(ANNA)], give(ANNA)).then_expect_error(already_used());
    }

    #[test]
    fn a_coupon_whose_terms_forbid_it_cannot_be_given() {
        when(vec![issued(|issue| issue.terms.givable = false)], give(ANNA))
            .then_expect_error(Refusal::NotGivable);
    }
}

mod withdrawing {
    use super::*;

    fn withdraw(member_id: i64) -> CouponCommand {
        CouponCommand::Withdraw { member_id }
    }

    #[test]
    fn the_giver_takes_a_pending_gift_back_locked_or_not() {
        let withdrawn = || vec![CouponEvent::GiftWithdrawn { gift: 1, at_ms: NOON }];
        when(vec![plain(), given(1, ANNA)], withdraw(ANNA)).then_expect_events(withdrawn());
        when(locked(), withdraw(ANNA)).then_expect_events(withdrawn());
    }

    #[test]
    fn there_is_nothing_to_withdraw_without_a_pending_gift() {
        when(vec![plain()], withdraw(ANNA)).then_expect_error(Refusal::NothingToReceive);
        when_at(NOON + DAY, vec![plain(), given(1, ANNA)], withdraw(ANNA))
            .then_expect_error(Refusal::NothingToReceive);
    }

    #[test]
    fn a_gift_that_was_received_cannot_be_withdrawn() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], withdraw(ANNA))
            .then_expect_error(Refusal::NothingToReceive);
    }

    #[test]
    fn a_former_giver_cannot_withdraw_the_present_holders_gift() {
        let on = vec![plain(), given(1, ANNA), received(1, ANNA, BEN), given(2, BEN)];
        when(on, withdraw(ANNA)).then_expect_error(Refusal::NothingToReceive);
    }

    #[test]
    fn nobody_withdraws_the_gift_of_a_coupon_that_was_never_his() {
        when(vec![plain(), given(1, ANNA)], withdraw(BEN)).then_expect_error(Refusal::NoSuchCoupon);
    }
}

mod receiving {
    use super::*;

    /// Receiving and peeking refuse alike.
    fn refused(given: &[CouponEvent], member_id: i64, code: i64, at_ms: i64, why: &Refusal) {
        for command in [receive(member_id, code), peek(member_id, code)] {
            when_at(at_ms, given.to_vec(), command).then_expect_error(why.clone());
        }
    }

    #[test]
    fn the_right_code_hands_the_coupon_over() {
        when(vec![plain(), given(1, ANNA)], receive(BEN, code(1)))
            .then_expect_events(vec![received(1, ANNA, BEN)]);
    }

    #[test]
    fn the_right_code_shows_the_gift_without_an_event() {
        when(vec![plain(), given(1, ANNA)], peek(BEN, code(1))).then_expect_events(vec![]);
    }

    #[test]
    fn a_wrong_code_is_an_event_when_receiving_and_when_peeking() {
        for command in [receive(STRANGER, code(1) + 1), peek(STRANGER, code(1) + 1)] {
            when(vec![plain(), given(1, ANNA)], command).then_expect_events(vec![rejected(1)]);
        }
    }

    #[test]
    fn the_fifth_wrong_code_is_still_an_event() {
        let mut four = locked();
        four.pop();
        when(four, receive(STRANGER, 0)).then_expect_events(vec![rejected(1)]);
    }

    #[test]
    fn after_five_wrong_codes_even_the_right_one_finds_the_gift_locked() {
        refused(&locked(), BEN, code(1), NOON, &Refusal::GiftLocked);
    }

    #[test]
    fn a_new_gift_has_a_new_code_and_five_tries() {
        let mut again = locked();
        again.extend([CouponEvent::GiftWithdrawn { gift: 1, at_ms: NOON }, given(2, ANNA)]);
        assert_ne!(code(1), code(2));
        when(again.clone(), receive(STRANGER, code(1))).then_expect_events(vec![rejected(2)]);
        when(again, receive(BEN, code(2))).then_expect_events(vec![received(2, ANNA, BEN)]);
    }

    #[test]
    fn there_is_nothing_to_receive_without_a_pending_gift() {
        let nothing = Refusal::NothingToReceive;
        let withdrawn = CouponEvent::GiftWithdrawn { gift: 1, at_ms: NOON };
        refused(&[], BEN, code(1), NOON, &nothing);
        refused(&[plain()], BEN, code(1), NOON, &nothing);
        refused(&[plain(), given(1, ANNA), withdrawn], BEN, code(1), NOON, &nothing);
        refused(&[plain(), given(1, ANNA)], BEN, code(1), NOON + DAY, &nothing);
        refused(&[plain(), given(1, ANNA), received(1, ANNA, BEN)], STRANGER, code(1), NOON, &nothing);
        refused(&[plain(), given(1, ANNA), voided()], BEN, code(1), NOON, &nothing);
    }

    #[test]
    fn nobody_receives_his_own_gift() {
        refused(&[plain(), given(1, ANNA)], ANNA, code(1), NOON, &Refusal::OwnGift);
    }

    #[test]
    fn a_holder_without_a_pending_gift_has_nothing_to_receive() {
        refused(&[plain()], ANNA, code(1), NOON, &Refusal::NothingToReceive);
    }

    #[test]
    fn the_receiver_who_repeats_his_code_is_answered_again() {
        let received = [plain(), given(1, ANNA), received(1, ANNA, BEN)];
        when(received.to_vec(), receive(BEN, code(1))).then_expect_events(vec![]);
        when(received.to_vec(), peek(BEN, code(1))).then_expect_events(vec![]);
        refused(&received, BEN, code(1) + 1, NOON, &Refusal::NothingToReceive);
    }

    #[test]
    fn a_giver_may_receive_his_coupon_back() {
        let given_back = vec![plain(), given(1, ANNA), received(1, ANNA, BEN), given(2, BEN)];
        when(given_back, receive(ANNA, code(2))).then_expect_events(vec![received(2, BEN, ANNA)]);
    }
}

mod redeeming {
    use super::*;

    fn counter() -> CouponCommand {
        redeem_by(Redeemer::Employee(EMPLOYEE_ID))
    }

    fn refused_to_both(given: &[CouponEvent], facts: &Facts, why: &Refusal) {
        when_with(facts.clone(), given.to_vec(), redeem(ANNA)).then_expect_error(why.clone());
        when_with(facts.clone(), given.to_vec(), counter()).then_expect_error(why.clone());
    }

    #[test]
    fn a_member_redeems_his_coupon() {
        when(vec![plain()], redeem(ANNA)).then_expect_events(vec![redeemed(ANNA)]);
    }

    #[test]
    fn an_employee_redeems_the_holders_coupon() {
        when(vec![plain()], counter()).then_expect_events(vec![redeemed_as(9, ANNA, EMPLOYEE_ID)]);
    }

    #[test]
    fn the_receiver_redeems_what_was_given_to_him() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], redeem(BEN))
            .then_expect_events(vec![redeemed(BEN)]);
    }

    #[test]
    fn a_coupon_is_valid_from_the_first_to_the_last_instant_of_its_days() {
        for at_ms in [issue().starts_at_ms, end() - 1] {
            let used = when_at(at_ms, vec![plain()], redeem(ANNA)).inspect_result();
            assert!(matches!(used.as_deref(), Ok([CouponEvent::Redeemed { .. }])), "{used:?}");
        }
        refused_to_both(&[plain()], &facts_at(issue().starts_at_ms - 1), &Refusal::NotStarted);
        refused_to_both(&[plain()], &facts_at(end()), &Refusal::Expired);
    }

    #[test]
    fn a_coupon_that_was_never_issued_or_never_his_cannot_be_redeemed() {
        refused_to_both(&[], &facts(), &Refusal::NoSuchCoupon);
        when(vec![plain()], redeem(BEN)).then_expect_error(Refusal::NoSuchCoupon);
    }

    #[test]
    fn a_coupon_that_was_given_away_cannot_be_redeemed_by_its_giver() {
        when(vec![plain(), given(1, ANNA), received(1, ANNA, BEN)], redeem(ANNA))
            .then_expect_error(Refusal::GivenAway);
    }

    #[test]
    fn a_voided_coupon_cannot_be_redeemed() {
        refused_to_both(&[plain(), voided()], &facts(), &Refusal::Voided);
    }

    #[test]
    fn a_used_coupon_cannot_be_redeemed_again() {
        refused_to_both(&[plain(), redeemed(ANNA)], &facts(), &already_used());
    }

    #[test]
    fn a_reversed_coupon_can_be_redeemed_again() {
        let back = vec![plain(), redeemed_as(8, ANNA, 0), reversed(8)];
        when(back, redeem(ANNA)).then_expect_events(vec![redeemed(ANNA)]);
    }

    #[test]
    fn a_pending_gift_cannot_be_redeemed() {
        refused_to_both(&[plain(), given(1, ANNA)], &facts(), &Refusal::BeingGiven);
        refused_to_both(&locked(), &facts(), &Refusal::BeingGiven);
    }

    #[test]
    fn a_lapsed_gift_is_in_hand_again_and_its_lapse_is_written_with_the_use() {
        let at_ms = NOON + DAY;
        let lapsed = CouponEvent::GiftLapsed { gift: 1, at_ms };
        let used =
            CouponEvent::Redeemed { redemption_id: 9, member_id: ANNA, shop_id: SHOP, employee_id: 0, at_ms };
        when_at(at_ms, vec![plain(), given(1, ANNA)], redeem(ANNA)).then_expect_events(vec![lapsed, used]);
    }

    #[test]
    fn what_staff_must_redeem_only_staff_redeem() {
        let staff_only = issued(|issue| issue.terms.self_redeemable = false);
        when(vec![staff_only.clone()], redeem(ANNA)).then_expect_error(Refusal::NotSelfRedeemable);
        when(vec![staff_only], counter()).then_expect_events(vec![redeemed_as(9, ANNA, EMPLOYEE_ID)]);
    }

    #[test]
    fn a_coupon_is_usable_on_its_weekdays_only() {
        let on = |weekdays: &[u8]| [issued(|issue| issue.terms.weekdays = weekdays.to_vec())];
        refused_to_both(&on(&[2, 3, 4, 5, 6, 7]), &facts(), &Refusal::WrongWeekday);
        when(on(&[7, 1]).to_vec(), redeem(ANNA)).then_expect_events(vec![redeemed(ANNA)]);
    }

    #[test]
    fn nothing_is_redeemed_at_a_shop_that_is_closed_or_unknown() {
        let closed = Some(Shop { open: false, ..open_shop() });
        for shop in [closed, Some(Shop::default()), None] {
            let shop = shop.map(Arc::new);
            refused_to_both(&[plain()], &Facts { shop, ..facts() }, &Refusal::NoSuchShop);
        }
    }

    #[test]
    fn a_coupon_is_redeemed_at_its_shops_only() {
        let at = |shop_ids: &[i64]| [issued(|issue| issue.terms.shop_ids = shop_ids.to_vec())];
        refused_to_both(&at(&[1, 2]), &facts(), &Refusal::NotAtThisShop);
        when(at(&[1, SHOP]).to_vec(), redeem(ANNA)).then_expect_events(vec![redeemed(ANNA)]);
    }

    #[test]
    fn a_coupon_for_every_own_shop_is_not_redeemed_at_a_partner() {
        let partner = || Facts { shop: Some(Shop { partner: true, ..open_shop() }.into()), ..facts() };
        refused_to_both(&[plain()], &partner(), &Refusal::NotAtThisShop);
        let listed = issued(|issue| issue.terms.shop_ids = vec![SHOP]);
        when_with(partner(), vec![listed], redeem(ANNA)).then_expect_events(vec![redeemed(ANNA)]);
    }

    #[test]
    fn a_coupon_that_needs_the_shops_qr_is_self_redeemed_only_with_it() {
        let scan = || vec![issued(|issue| issue.terms.scan_required = true)];
        when(scan(), redeem(ANNA)).then_expect_error(Refusal::ScanRequired);
        when_with(Facts { scanned: true, ..facts() }, scan(), redeem(ANNA))
            .then_expect_events(vec![redeemed(ANNA)]);
        when(scan(), counter()).then_expect_events(vec![redeemed_as(9, ANNA, EMPLOYEE_ID)]);
    }
}

mod reversing {
    use super::*;

    #[test]
    fn a_use_is_taken_back_within_its_time() {
        let at_ms = NOON + DAY;
        let expected = CouponEvent::RedemptionReversed {
            redemption_id: 9,
            employee_id: EMPLOYEE_ID,
            reason: "按錯".to_owned(),
            at_ms,
        };
        when_at(at_ms, vec![plain(), redeemed(ANNA)], reverse(9)).then_expect_events(vec![expected]);
        when_at(at_ms + 1, vec![plain(), redeemed(ANNA)], reverse(9))
            .then_expect_error(Refusal::NotReversible);
    }

    #[test]
    fn a_use_is_taken_back_once() {
        when(vec![plain(), redeemed(ANNA), reversed(9)], reverse(9))
            .then_expect_error(Refusal::NotReversible);
    }

    #[test]
    fn an_earlier_use_stays_reversed_when_a_later_one_stands() {
        let again = || vec![plain(), redeemed_as(8, ANNA, 0), reversed(8), redeemed(ANNA)];
        when(again(), reverse(8)).then_expect_error(Refusal::NotReversible);
        when(again(), reverse(9)).then_expect_events(vec![reversed(9)]);
    }

    #[test]
    fn only_a_use_of_this_coupon_is_taken_back() {
        when(vec![plain(), redeemed(ANNA)], reverse(8)).then_expect_error(Refusal::NoSuchRedemption);
        when(vec![], reverse(9)).then_expect_error(Refusal::NoSuchRedemption);
    }

    #[test]
    fn a_use_taken_back_past_the_end_expires_at_once() {
        let at_ms = end();
        let used_at = end() - 1;
        let used = CouponEvent::Redeemed {
            redemption_id: 9,
            member_id: ANNA,
            shop_id: SHOP,
            employee_id: 0,
            at_ms: used_at,
        };
        let back = CouponEvent::RedemptionReversed {
            redemption_id: 9,
            employee_id: EMPLOYEE_ID,
            reason: "按錯".to_owned(),
            at_ms,
        };
        when_at(at_ms, vec![plain(), used], reverse(9))
            .then_expect_events(vec![back, CouponEvent::Expired { at_ms }]);
    }
}

mod reviewing {
    use super::*;

    #[test]
    fn the_user_reviews_what_he_used() {
        when(vec![plain(), redeemed(ANNA)], evaluate(ANNA)).then_expect_events(vec![evaluated(ANNA)]);
    }

    #[test]
    fn nobody_reviews_a_coupon_that_was_never_his() {
        when(vec![plain(), redeemed(ANNA)], evaluate(BEN)).then_expect_error(Refusal::NoSuchCoupon);
        when(vec![], evaluate(ANNA)).then_expect_error(Refusal::NoSuchCoupon);
    }

    #[test]
    fn a_giver_does_not_review_what_the_receiver_used() {
        let used = vec![plain(), given(1, ANNA), received(1, ANNA, BEN), redeemed(BEN)];
        when(used.clone(), evaluate(ANNA)).then_expect_error(Refusal::GivenAway);
        when(used, evaluate(BEN)).then_expect_events(vec![evaluated(BEN)]);
    }

    #[test]
    fn a_voided_coupon_cannot_be_reviewed() {
        when(vec![plain(), voided()], evaluate(ANNA)).then_expect_error(Refusal::Voided);
    }

    #[test]
    fn a_coupon_that_is_not_used_or_was_reversed_cannot_be_reviewed() {
        when(vec![plain()], evaluate(ANNA)).then_expect_error(Refusal::NotUsedYet);
        when(vec![plain(), redeemed(ANNA), reversed(9)], evaluate(ANNA))
            .then_expect_error(Refusal::NotUsedYet);
    }

    #[test]
    fn a_coupon_is_reviewed_once_even_after_a_reversal() {
        let reviewed = vec![plain(), redeemed(ANNA), evaluated(ANNA)];
        when(reviewed.clone(), evaluate(ANNA)).then_expect_error(Refusal::AlreadyReviewed);
        let mut used_again = reviewed;
        used_again.extend([reversed(9), redeemed_as(10, ANNA, 0)]);
        when(used_again, evaluate(ANNA)).then_expect_error(Refusal::AlreadyReviewed);
    }
}

mod settling {
    use super::*;

    fn settled(at_ms: i64, given: Vec<CouponEvent>) -> Vec<CouponEvent> {
        when_at(at_ms, given, CouponCommand::Settle).inspect_result().unwrap()
    }

    #[test]
    fn what_is_not_due_is_left_alone() {
        assert_eq!(settled(NOON, vec![]), vec![]);
        assert_eq!(settled(end() - 1, vec![plain()]), vec![]);
        assert_eq!(settled(NOON + DAY - 1, vec![plain(), given(1, ANNA)]), vec![]);
    }

    #[test]
    fn a_lapsed_gift_is_written_down_once() {
        let lapsed = CouponEvent::GiftLapsed { gift: 1, at_ms: NOON + DAY };
        assert_eq!(settled(NOON + DAY, vec![plain(), given(1, ANNA)]), vec![lapsed.clone()]);
        assert_eq!(settled(NOON + DAY, vec![plain(), given(1, ANNA), lapsed]), vec![]);
    }

    #[test]
    fn a_passed_end_is_written_down_once() {
        let expired = CouponEvent::Expired { at_ms: end() };
        assert_eq!(settled(end(), vec![plain()]), vec![expired.clone()]);
        assert_eq!(settled(end(), vec![plain(), expired]), vec![]);
    }

    #[test]
    fn a_gift_that_lapsed_with_the_end_is_written_down_before_it() {
        let given = given_at(1, ANNA, end() - DAY);
        let expected =
            vec![CouponEvent::GiftLapsed { gift: 1, at_ms: end() }, CouponEvent::Expired { at_ms: end() }];
        assert_eq!(settled(end(), vec![plain(), given]), expected);
    }

    #[test]
    fn what_is_used_or_voided_does_not_expire() {
        assert_eq!(settled(end(), vec![plain(), redeemed(ANNA)]), vec![]);
        assert_eq!(settled(end(), vec![plain(), voided()]), vec![]);
    }
}

mod voiding {
    use super::*;

    #[test]
    fn an_unused_coupon_is_voided_even_while_it_is_being_given() {
        when(vec![plain()], void()).then_expect_events(vec![voided()]);
        when(vec![plain(), given(1, ANNA)], void()).then_expect_events(vec![voided()]);
    }

    #[test]
    fn a_lapsed_gift_is_written_down_before_the_voiding() {
        let at_ms = NOON + DAY;
        let voided = CouponEvent::Voided { employee_id: EMPLOYEE_ID, reason: "發錯".to_owned(), at_ms };
        when_at(at_ms, vec![plain(), given(1, ANNA)], void())
            .then_expect_events(vec![CouponEvent::GiftLapsed { gift: 1, at_ms }, voided]);
    }

    #[test]
    fn an_unknown_coupon_cannot_be_voided() {
        when(vec![], void()).then_expect_error(Refusal::NoSuchCoupon);
    }

    #[test]
    fn a_coupon_is_voided_once() {
        when(vec![plain(), voided()], void()).then_expect_error(Refusal::Voided);
    }

    #[test]
    fn a_used_coupon_cannot_be_voided() {
        when(vec![plain(), redeemed(ANNA)], void()).then_expect_error(already_used());
    }
}

mod definitions {
    use super::issuing::offer;
    use super::*;

    fn when(given: Vec<DefinitionEvent>, command: DefinitionCommand) -> AggregateResultValidator<Definition> {
        TestFramework::<Definition>::with(facts()).given(given).when(command)
    }

    fn defined(stock: Option<i64>) -> DefinitionEvent {
        DefinitionEvent::Defined { offer: Box::new(offer()), stock, employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    fn define() -> DefinitionCommand {
        DefinitionCommand::Define {
            offer: Box::new(offer()),
            stock: Some(20),
            employee_id: EMPLOYEE_ID,
            at_most: None,
        }
    }

    fn other_offer() -> Box<Offer> {
        Box::new(Offer { claimable: false, ..offer() })
    }

    fn edit(offer: Box<Offer>) -> DefinitionCommand {
        DefinitionCommand::Edit { offer, employee_id: EMPLOYEE_ID }
    }

    fn change_stock(by: i64) -> DefinitionCommand {
        DefinitionCommand::ChangeStock { by, employee_id: EMPLOYEE_ID, at_most: None }
    }

    fn stock_changed(by: i64, stock: i64) -> DefinitionEvent {
        DefinitionEvent::StockChanged { by, stock, employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    fn change_state(on: bool) -> DefinitionCommand {
        DefinitionCommand::ChangeState { on, employee_id: EMPLOYEE_ID }
    }

    fn state_changed(on: bool) -> DefinitionEvent {
        DefinitionEvent::StateChanged { on, employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    #[test]
    fn a_definition_is_defined_once() {
        when(vec![], define()).then_expect_events(vec![defined(Some(20))]);
        when(vec![defined(None)], define()).then_expect_error(Refusal::field("id", Wrong::Taken));
    }

    #[test]
    fn nothing_but_defining_works_on_an_unknown_definition() {
        for command in [edit(other_offer()), change_stock(1), change_state(false)] {
            when(vec![], command).then_expect_error(Refusal::NoSuchDefinition);
        }
    }

    #[test]
    fn an_edit_replaces_the_offer_and_the_same_offer_changes_nothing() {
        let edited = DefinitionEvent::Edited { offer: other_offer(), employee_id: EMPLOYEE_ID, at_ms: NOON };
        when(vec![defined(None)], edit(other_offer())).then_expect_events(vec![edited.clone()]);
        when(vec![defined(None), edited], edit(other_offer())).then_expect_events(vec![]);
    }

    #[test]
    fn stock_becomes_larger_and_smaller() {
        when(vec![defined(Some(20))], change_stock(5)).then_expect_events(vec![stock_changed(5, 25)]);
        when(vec![defined(Some(20)), stock_changed(5, 25)], change_stock(-25))
            .then_expect_events(vec![stock_changed(-25, 0)]);
    }

    #[test]
    fn stock_stays_between_nothing_and_the_largest_number() {
        let out_of_range = || Refusal::field("num", Wrong::OutOfRange { min: 0, max: MAX_ID });
        when(vec![defined(Some(20))], change_stock(-21)).then_expect_error(out_of_range());
        when(vec![defined(Some(20))], change_stock(MAX_ID)).then_expect_error(out_of_range());
        when(vec![defined(Some(20))], change_stock(i64::MAX)).then_expect_error(out_of_range());
    }

    #[test]
    fn an_unlimited_stock_can_be_given_a_number_but_not_made_smaller() {
        when(vec![defined(None)], change_stock(30)).then_expect_events(vec![stock_changed(30, 30)]);
        when(vec![defined(None)], change_stock(-1))
            .then_expect_error(Refusal::field("num", Wrong::StockUnlimited));
    }

    #[test]
    fn a_definition_is_switched_off_and_on() {
        when(vec![defined(None)], change_state(false)).then_expect_events(vec![state_changed(false)]);
        when(vec![defined(None)], change_state(true)).then_expect_events(vec![]);
        when(vec![defined(None), state_changed(false)], change_state(true))
            .then_expect_events(vec![state_changed(true)]);
    }
}

fn shop_details(name: &str) -> ShopDetails {
    ShopDetails { name: name.to_owned(), phone: "1".to_owned(), address: "a".to_owned() }
}

mod allotments {
    use coupon_ledger::allotment::{Allotment, AllotmentCommand, AllotmentEvent};

    use super::*;

    fn partner() -> Shop {
        Shop { partner: true, ..open_shop() }
    }

    fn facts_of_partner() -> Facts {
        let offer = Some(Box::new(issuing::offer()));
        let definition = Definition { offer, on: true, ..Definition::default() };
        Facts { shop: Some(partner().into()), definition: Some(definition.into()), ..facts() }
    }

    fn when_with(
        facts: Facts,
        given: Vec<AllotmentEvent>,
        command: AllotmentCommand,
    ) -> AggregateResultValidator<Allotment> {
        TestFramework::<Allotment>::with(facts).given(given).when(command)
    }

    fn when(given: Vec<AllotmentEvent>, command: AllotmentCommand) -> AggregateResultValidator<Allotment> {
        when_with(facts_of_partner(), given, command)
    }

    fn allot(end_date: &str) -> AllotmentCommand {
        let end_date = day(end_date);
        AllotmentCommand::Allot {
            partner_id: SHOP,
            definition_id: 1,
            num: 10,
            end_date,
            employee_id: EMPLOYEE_ID,
            at_most: None,
        }
    }

    fn allotted() -> AllotmentEvent {
        AllotmentEvent::Allotted {
            partner_id: SHOP,
            definition_id: 1,
            num: 10,
            end_date: day("2026-11-23"),
            employee_id: EMPLOYEE_ID,
            at_ms: NOON,
        }
    }

    fn stock(by: i64) -> AllotmentCommand {
        AllotmentCommand::ChangeStock { by, employee_id: EMPLOYEE_ID, at_most: None }
    }

    fn end(end_date: &str) -> AllotmentCommand {
        AllotmentCommand::ChangeEnd { end_date: day(end_date), employee_id: EMPLOYEE_ID }
    }

    #[test]
    fn coupons_are_set_aside_for_a_partner_who_is_open_from_a_definition_that_is_on() {
        when(vec![], allot("2026-11-23")).then_expect_events(vec![allotted()]);
        let refused =
            |facts: Facts, why: Refusal| when_with(facts, vec![], allot("2026-11-23")).then_expect_error(why);
        refused(Facts { shop: Some(open_shop().into()), ..facts_of_partner() }, Refusal::NoSuchRule);
        refused(Facts { shop: None, ..facts_of_partner() }, Refusal::NoSuchRule);
        refused(
            Facts { shop: Some(Shop { open: false, ..partner() }.into()), ..facts_of_partner() },
            Refusal::NoSuchShop,
        );
        refused(Facts { definition: None, ..facts_of_partner() }, Refusal::NoSuchDefinition);
        let off = facts_of_partner().definition.as_deref().cloned();
        let off = off.map(|definition| Arc::new(Definition { on: false, ..definition }));
        refused(Facts { definition: off, ..facts_of_partner() }, Refusal::NotOnOffer);
        let past = Refusal::field("end_time", Wrong::EndBeforeStart);
        when(vec![], allot("2026-11-22")).then_expect_error(past);
        when(vec![allotted()], allot("2026-11-23")).then_expect_error(Refusal::field("id", Wrong::Taken));
    }

    #[test]
    fn its_number_and_its_end_are_changed_and_nothing_else() {
        let changed =
            |by, num| AllotmentEvent::StockChanged { by, num, employee_id: EMPLOYEE_ID, at_ms: NOON };
        when(vec![allotted(), changed(5, 15)], stock(-15)).then_expect_events(vec![changed(-15, 0)]);
        for by in [-11, MAX_ID, i64::MAX] {
            let range = Refusal::field("num", Wrong::OutOfRange { min: 0, max: MAX_ID });
            when(vec![allotted()], stock(by)).then_expect_error(range);
        }
        let moved =
            AllotmentEvent::EndChanged { end_date: day("2026-11-01"), employee_id: EMPLOYEE_ID, at_ms: NOON };
        when(vec![allotted()], end("2026-11-01")).then_expect_events(vec![moved]);
        when(vec![allotted()], end("2026-11-23")).then_expect_events(vec![]);
        for command in [stock(1), end("2026-11-01")] {
            when(vec![], command).then_expect_error(Refusal::NoSuchRule);
        }
    }

    #[test]
    fn what_a_partner_hands_out_comes_from_an_open_allotment_of_his() {
        let mut allotment = Allotment::default();
        allotment.evolve(&allotted());
        let member = Some(Membership::default());
        let facts = || Facts {
            allotment: Some(allotment.clone().into()),
            member: member.clone(),
            ..facts_of_partner()
        };
        let take = |definition_id| CouponCommand::Issue {
            definition_id,
            member_id: ANNA,
            origin: Origin { source_id: 7, ..Origin::of(Source::Partner, 0) },
        };
        let ask = |facts: Facts, definition| super::when_with(facts, Vec::new(), take(definition));
        let expected = issued(|issue| {
            (issue.source, issue.source_id, issue.employee_id) = (Source::Partner, 7, 0);
        });
        ask(facts(), 1).then_expect_events(vec![expected]);
        ask(facts(), 2).then_expect_error(Refusal::NoSuchRule);
        for unknown in [None, Some(Allotment::default())] {
            let allotment = unknown.map(Arc::new);
            ask(Facts { allotment, ..facts() }, 1).then_expect_error(Refusal::NoSuchRule);
        }
        let closed = Some(Arc::new(Shop { open: false, ..partner() }));
        ask(Facts { shop: closed, ..facts() }, 1).then_expect_error(Refusal::NoSuchShop);
        let tomorrow = Zone::default().moment(NOON + DAY);
        ask(Facts { at: tomorrow, ..facts() }, 1).then_expect_error(Refusal::NotOnOffer);
        ask(Facts { member: None, ..facts() }, 1).then_expect_error(Refusal::NoSuchMember);
    }
}

mod shops {
    use super::*;

    #[test]
    fn a_partner_is_not_found_among_the_shops_nor_a_shop_among_the_partners() {
        let add =
            ShopCommand::Open { details: shop_details("總店"), partner: true, employee_id: EMPLOYEE_ID };
        let added = ShopEvent::Opened {
            details: shop_details("總店"),
            partner: true,
            employee_id: EMPLOYEE_ID,
            at_ms: NOON,
        };
        when(vec![], add).then_expect_events(vec![added.clone()]);
        let edit_partner = || ShopCommand::Edit {
            details: shop_details("分店"),
            open: true,
            partner: true,
            employee_id: EMPLOYEE_ID,
        };
        when(vec![added.clone()], edit_partner()).then_expect_events(vec![edited()]);
        when(vec![added], edit("分店", true)).then_expect_error(Refusal::NoSuchShop);
        when(vec![opened()], edit_partner()).then_expect_error(Refusal::NoSuchRule);
        when(vec![], edit_partner()).then_expect_error(Refusal::NoSuchRule);
    }

    fn when(given: Vec<ShopEvent>, command: ShopCommand) -> AggregateResultValidator<Shop> {
        TestFramework::<Shop>::with(facts()).given(given).when(command)
    }

    fn opened() -> ShopEvent {
        ShopEvent::Opened {
            details: shop_details("總店"),
            partner: false,
            employee_id: EMPLOYEE_ID,
            at_ms: NOON,
        }
    }

    fn open() -> ShopCommand {
        ShopCommand::Open { details: shop_details("總店"), partner: false, employee_id: EMPLOYEE_ID }
    }

    fn edit(name: &str, open: bool) -> ShopCommand {
        ShopCommand::Edit { details: shop_details(name), open, partner: false, employee_id: EMPLOYEE_ID }
    }

    fn edited() -> ShopEvent {
        ShopEvent::Edited { details: shop_details("分店"), employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    fn closed() -> ShopEvent {
        ShopEvent::Closed { employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    fn rotate() -> ShopCommand {
        ShopCommand::RotateAuditKey { employee_id: EMPLOYEE_ID }
    }

    fn rotated(audit_key: u32) -> ShopEvent {
        ShopEvent::AuditKeyRotated { audit_key, employee_id: EMPLOYEE_ID, at_ms: NOON }
    }

    #[test]
    fn a_shop_is_opened_once() {
        when(vec![], open()).then_expect_events(vec![opened()]);
        when(vec![opened()], open()).then_expect_error(Refusal::field("id", Wrong::Taken));
        when(vec![opened(), closed()], open()).then_expect_error(Refusal::field("id", Wrong::Taken));
    }

    #[test]
    fn nothing_but_opening_works_on_an_unknown_shop() {
        when(vec![], edit("分店", true)).then_expect_error(Refusal::NoSuchShop);
        when(vec![], rotate()).then_expect_error(Refusal::NoSuchShop);
    }

    #[test]
    fn an_edit_writes_what_changed_and_nothing_else() {
        when(vec![opened()], edit("總店", true)).then_expect_events(vec![]);
        when(vec![opened()], edit("分店", true)).then_expect_events(vec![edited()]);
        when(vec![opened()], edit("總店", false)).then_expect_events(vec![closed()]);
        when(vec![opened()], edit("分店", false)).then_expect_events(vec![edited(), closed()]);
    }

    #[test]
    fn a_closed_shop_is_opened_again_by_an_edit() {
        let reopened = ShopEvent::Reopened { employee_id: EMPLOYEE_ID, at_ms: NOON };
        when(vec![opened(), closed()], edit("總店", true)).then_expect_events(vec![reopened]);
        when(vec![opened(), closed()], edit("總店", false)).then_expect_events(vec![]);
    }

    #[test]
    fn each_rotation_takes_the_next_key_also_while_closed() {
        when(vec![opened()], rotate()).then_expect_events(vec![rotated(2)]);
        when(vec![opened(), closed(), rotated(2)], rotate()).then_expect_events(vec![rotated(3)]);
    }
}

mod approvals {
    use coupon_ledger::approval::{Act, Approval, ApprovalCommand, ApprovalEvent, HOLDS_MS, Proposal};
    use coupon_ledger::job::{Coupons, Job, JobCommand, JobEvent, Work};

    use super::*;

    fn when(given: Vec<ApprovalEvent>, command: ApprovalCommand) -> AggregateResultValidator<Approval> {
        TestFramework::<Approval>::with(facts()).given(given).when(command)
    }

    fn act() -> Act {
        Act::RaiseStock { definition_id: 1, by: 5, stock: 105 }
    }

    /// Proposed so long before the facts' noon.
    fn proposed(ago_ms: i64) -> ApprovalEvent {
        let behind = ["machine:3", "operator:7", "operator"].map(ToOwned::to_owned).into();
        ApprovalEvent::Proposed(Box::new(Proposal {
            act: act(),
            action: "/elecoupons/inventory".to_owned(),
            above: 100,
            proposed_by: "machine:3".to_owned(),
            behind,
            employee_id: 0,
            lapses_at_ms: NOON - ago_ms + HOLDS_MS,
            at_ms: NOON - ago_ms,
        }))
    }

    fn approve(by: &str) -> ApprovalCommand {
        ApprovalCommand::Approve { by: by.to_owned() }
    }

    fn refuse(by: &str) -> ApprovalCommand {
        ApprovalCommand::Refuse { by: by.to_owned(), reason: "多".to_owned() }
    }

    fn withdraw(by: &str) -> ApprovalCommand {
        ApprovalCommand::Withdraw { by: by.to_owned() }
    }

    fn approved() -> ApprovalEvent {
        ApprovalEvent::Approved { by: "operator:8".to_owned(), at_ms: NOON }
    }

    fn refused() -> ApprovalEvent {
        ApprovalEvent::Refused { by: "operator:8".to_owned(), reason: "多".to_owned(), at_ms: NOON }
    }

    fn withdrawn() -> ApprovalEvent {
        ApprovalEvent::Withdrawn { by: "machine:3".to_owned(), at_ms: NOON }
    }

    fn ended() -> Refusal {
        Refusal::field("id", Wrong::Ended)
    }

    #[test]
    fn a_proposal_keeps_the_whole_command_and_is_made_once() {
        let propose = || ApprovalCommand::Propose {
            act: act(),
            action: "/elecoupons/inventory",
            above: 100,
            by: "machine:3".to_owned(),
            behind: ["machine:3", "operator:7", "operator"].map(ToOwned::to_owned).into(),
            employee_id: 0,
        };
        when(vec![], propose()).then_expect_events(vec![proposed(0)]);
        when(vec![proposed(0)], propose()).then_expect_error(Refusal::IdTaken);
        for command in
            [approve("operator:8"), refuse("operator:8"), withdraw("machine:3"), ApprovalCommand::Expire]
        {
            when(vec![], command).then_expect_error(Refusal::NoSuchRule);
        }
    }

    #[test]
    fn another_approves_it_and_nobody_who_may_be_who_proposed_it() {
        when(vec![proposed(1)], approve("operator:8")).then_expect_events(vec![approved()]);
        when(vec![proposed(1), approved()], approve("operator:8")).then_expect_events(vec![]);
        when(vec![proposed(1), approved()], approve("operator:9")).then_expect_error(ended());
        for himself in ["machine:3", "operator:7", "operator"] {
            when(vec![proposed(1)], approve(himself)).then_expect_error(Refusal::NotAnother);
        }
    }

    #[test]
    fn anybody_who_is_asked_refuses_it_and_only_its_proposer_withdraws_it() {
        when(vec![proposed(1)], refuse("operator:8")).then_expect_events(vec![refused()]);
        when(vec![proposed(1), refused()], refuse("operator:8")).then_expect_events(vec![]);
        when(vec![proposed(1)], withdraw("machine:3")).then_expect_events(vec![withdrawn()]);
        when(vec![proposed(1), withdrawn()], withdraw("machine:3")).then_expect_events(vec![]);
        when(vec![proposed(1)], withdraw("operator:7")).then_expect_error(Refusal::NoSuchRule);
    }

    #[test]
    fn what_has_come_to_one_end_comes_to_no_other() {
        for end in [approved(), refused(), withdrawn(), ApprovalEvent::Expired { at_ms: NOON }] {
            for (command, comes) in [
                (approve("operator:8"), approved()),
                (refuse("operator:8"), refused()),
                (withdraw("machine:3"), withdrawn()),
            ] {
                if end != comes {
                    when(vec![proposed(1), end.clone()], command).then_expect_error(ended());
                }
            }
            when(vec![proposed(HOLDS_MS), end], ApprovalCommand::Expire).then_expect_events(vec![]);
        }
    }

    #[test]
    fn it_lapses_at_the_instant_and_that_is_written_once() {
        when(vec![proposed(HOLDS_MS - 1)], approve("operator:8")).then_expect_events(vec![approved()]);
        when(vec![proposed(HOLDS_MS - 1)], ApprovalCommand::Expire).then_expect_events(vec![]);
        for command in [approve("operator:8"), refuse("operator:8"), withdraw("machine:3")] {
            when(vec![proposed(HOLDS_MS)], command).then_expect_error(ended());
        }
        when(vec![proposed(HOLDS_MS)], ApprovalCommand::Expire)
            .then_expect_events(vec![ApprovalEvent::Expired { at_ms: NOON }]);
    }

    #[test]
    fn a_job_that_waits_is_started_or_declined_and_nothing_else() {
        let work = || Work::Recall { coupons: Coupons::OfDefinition(1) };
        let reason = || "發錯".to_owned();
        let (targeted, until_position, employee_id, at_ms) = (9, 12, EMPLOYEE_ID, NOON);
        let proposed = || JobEvent::Proposed {
            approval_id: 3,
            work: work(),
            targeted,
            until_position,
            reason: reason(),
            employee_id,
            at_ms,
        };
        let start =
            JobCommand::Start { work: work(), targeted, until_position, reason: reason(), employee_id };
        let started = JobEvent::Started {
            work: work(),
            targeted,
            until_position,
            reason: reason(),
            employee_id,
            at_ms,
        };
        let cancelled = JobEvent::Cancelled { employee_id, at_ms };
        let when =
            |command: JobCommand| TestFramework::<Job>::with(facts()).given(vec![proposed()]).when(command);
        when(start).then_expect_events(vec![started]);
        when(JobCommand::Decline { employee_id }).then_expect_events(vec![cancelled]);
        for command in [
            JobCommand::Pause { employee_id },
            JobCommand::Resume { employee_id },
            JobCommand::Cancel { employee_id },
        ] {
            when(command).then_expect_error(Refusal::NeedsApproval);
        }
    }
}
