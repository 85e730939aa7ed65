//! What may be done with a coupon.
//!
//! Each decision is a flat list of early returns, in the precedence that the contract documents (docs/api.md); one test
//! walks them in that order.

use super::{
    CounterCode, Coupon, CouponCommand, CouponEvent, GIFT_TRIES, Issue, Origin, Past, Redeemer, Source,
    is_usable_on,
};
use crate::definition::{IssueLimit, valid_instants};
use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

impl Coupon {
    /// What follows from a command, or why nothing does. An empty answer means that all is as was asked already.
    pub fn decide(&self, command: &CouponCommand, facts: &Facts) -> Result<Vec<CouponEvent>, Refusal> {
        let now_ms = facts.at.ms;
        match command {
            CouponCommand::Issue { definition_id, member_id, origin } => {
                self.issue(*definition_id, *member_id, *origin, facts)
            }
            CouponCommand::Import { definition_id, member_id, days, born_at_ms, past, employee_id } => {
                self.import((*definition_id, *member_id), *days, (*born_at_ms, *past), *employee_id, facts)
            }
            CouponCommand::View { member_id } => match self.holdings.get(member_id) {
                None => Err(Refusal::NoSuchCoupon),
                Some(holding) if self.holder_id == *member_id && !holding.read => {
                    Ok(vec![CouponEvent::Viewed { member_id: *member_id, at_ms: now_ms }])
                }
                Some(_) => Ok(Vec::new()),
            },
            CouponCommand::Give { member_id, lapse_after_ms } => {
                self.give(*member_id, *lapse_after_ms, facts)
            }
            CouponCommand::Withdraw { member_id } => {
                if !self.has_held(*member_id) {
                    return Err(Refusal::NoSuchCoupon);
                }
                match self.pending_gift(now_ms) {
                    Some(gift) if self.holder_id == *member_id => {
                        Ok(vec![CouponEvent::GiftWithdrawn { gift: gift.number, at_ms: now_ms }])
                    }
                    _ => Err(Refusal::NothingToReceive),
                }
            }
            CouponCommand::Receive { member_id, code } => self.receive(*member_id, *code, facts),
            CouponCommand::Peek { member_id, code } => {
                if self.was_received_with(*member_id, *code, facts) {
                    return Ok(Vec::new());
                }
                Ok(self.try_code(*member_id, *code, facts)?.into_iter().collect())
            }
            // Of someone else's coupon a till learns nothing.
            CouponCommand::UseInOrder { member_id, .. } if self.holder_id != *member_id => {
                Err(Refusal::NoSuchCoupon)
            }
            CouponCommand::Redeem { redeemer, shop_id, redemption_id, .. }
            | CouponCommand::UseInOrder { redeemer, shop_id, redemption_id, .. } => {
                self.redeem(*redeemer, *shop_id, *redemption_id, facts)
            }
            CouponCommand::Reverse { redemption_id, employee_id, reason, within_ms } => {
                self.reverse(*redemption_id, *employee_id, reason, *within_ms, facts)
            }
            CouponCommand::Evaluate { member_id, score, text, salt } => {
                self.evaluate(*member_id, *score, text, salt, facts)
            }
            CouponCommand::Settle => Ok(self.due(now_ms)),
            CouponCommand::MoveEnd { end_date, employee_id, reason } => {
                self.move_end(*end_date, *employee_id, reason, facts)
            }
            CouponCommand::Void { employee_id, reason } => {
                if self.issue.is_none() {
                    return Err(Refusal::NoSuchCoupon);
                }
                self.refuse_if_voided_or_used()?;
                let mut events = self.lapsed_gift(now_ms);
                events.push(CouponEvent::Voided {
                    employee_id: *employee_id,
                    reason: reason.clone(),
                    at_ms: now_ms,
                });
                Ok(events)
            }
        }
    }

    /// 2005 2003 5006 from a partner; then 2002 5006 310 5003; 5002 and 5001 are asked of the counters, under the head lock.
    fn issue(
        &self,
        definition_id: i64,
        member_id: i64,
        origin: Origin,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        if self.issue.is_some() {
            return Err(Refusal::IdTaken);
        }
        if origin.source == Source::Partner {
            refuse_unless_allotted(definition_id, facts)?;
        }
        let definition = facts.definition.as_ref().ok_or(Refusal::NoSuchDefinition)?;
        let offer = definition.offer.as_ref().ok_or(Refusal::NoSuchDefinition)?;
        let Origin { source, source_id, employee_id, order_id, goods_id } = origin;
        let claimed = source == Source::Claimed;
        if !definition.on || offer.has_ended(facts.at.day) || (claimed && !offer.claimable) {
            return Err(Refusal::NotOnOffer);
        }
        let member = facts.member.as_ref().ok_or(Refusal::NoSuchMember)?;
        let days = offer.valid_days(facts.at.day, member.card_end)?;
        if offer.issue_limit == IssueLimit::Levels && !offer.level_ids.contains(&member.level_id) {
            return Err(Refusal::LevelNotEligible);
        }
        let (starts_at_ms, ends_at_ms) = valid_instants(facts.zone, days);
        Ok(vec![CouponEvent::Issued(Box::new(Issue {
            definition_id,
            terms: offer.terms.clone(),
            member_id,
            start_date: days.0,
            end_date: days.1,
            starts_at_ms,
            ends_at_ms,
            source,
            source_id,
            employee_id,
            order_id,
            goods_id,
            at_ms: facts.at.ms,
        }))])
    }

    /// 401, then 2002 310 2003; 5001 is asked of the counters. Limits, levels and the switch bind what is issued here, not
    /// what was issued elsewhere. One that has ended expires at once: nothing would sweep it.
    fn import(
        &self,
        (definition_id, member_id): (i64, i64),
        days: (chrono::NaiveDate, chrono::NaiveDate),
        (born_at_ms, past): (i64, Past),
        employee_id: i64,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        let now_ms = facts.at.ms;
        match &self.issue {
            Some(issue) if issue.source == Source::Imported => {
                return Err(Refusal::field("id", Wrong::ImportedAlready));
            }
            Some(_) => return Err(Refusal::field("id", Wrong::Taken)),
            None => {}
        }
        if days.1 < days.0 {
            return Err(Refusal::field("end_date", Wrong::EndBeforeStart));
        }
        if born_at_ms > now_ms {
            return Err(Refusal::field("create_date", Wrong::InTheFuture));
        }
        match past {
            Past::Used { at_ms, .. } | Past::Voided { at_ms } if at_ms > now_ms => {
                return Err(Refusal::field("use_date", Wrong::InTheFuture));
            }
            _ => {}
        }
        let offer = facts.definition.as_ref().and_then(|definition| definition.offer.as_ref());
        let offer = offer.ok_or(Refusal::NoSuchDefinition)?;
        if facts.member.is_none() {
            return Err(Refusal::NoSuchMember);
        }
        let shop_is_there = facts.shop.as_ref().is_some_and(|shop| shop.details.is_some());
        if matches!(past, Past::Used { .. }) && !shop_is_there {
            return Err(Refusal::NoSuchShop);
        }
        let (starts_at_ms, ends_at_ms) = valid_instants(facts.zone, days);
        let issue = Box::new(Issue {
            definition_id,
            terms: offer.terms.clone(),
            member_id,
            start_date: days.0,
            end_date: days.1,
            starts_at_ms,
            ends_at_ms,
            source: Source::Imported,
            source_id: 0,
            employee_id,
            order_id: 0,
            goods_id: 0,
            at_ms: born_at_ms,
        });
        let mut events = vec![CouponEvent::Imported { issue, past, at_ms: now_ms }];
        if past == Past::Unused && ends_at_ms <= now_ms {
            events.push(CouponEvent::Expired { at_ms: now_ms });
        }
        Ok(events)
    }

    /// 2001; then by a member 3009 3004 3001 3003 4002 3007 4001 4003 2003 3002 3010,
    /// and by an employee 3004 3001 3003 4002 4001 4003 2003 3002 7005.
    fn redeem(
        &self,
        redeemer: Redeemer,
        shop_id: i64,
        redemption_id: i64,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        let Some(issue) = &self.issue else {
            return Err(Refusal::NoSuchCoupon);
        };
        let terms = &issue.terms;
        let now_ms = facts.at.ms;
        let by_member = match redeemer {
            Redeemer::Member(member_id) => {
                self.refuse_unless_holder(member_id)?;
                true
            }
            Redeemer::Employee(_) | Redeemer::ByCode { .. } => false,
        };
        self.refuse_if_voided_or_used()?;
        if self.pending_gift(now_ms).is_some() {
            return Err(Refusal::BeingGiven);
        }
        if issue.ends_at_ms <= now_ms {
            return Err(Refusal::Expired);
        }
        if by_member && !terms.self_redeemable {
            return Err(Refusal::NotSelfRedeemable);
        }
        if now_ms < issue.starts_at_ms {
            return Err(Refusal::NotStarted);
        }
        if !is_usable_on(&terms.weekdays, facts.at.weekday) {
            return Err(Refusal::WrongWeekday);
        }
        let shop = facts.shop.as_ref().filter(|shop| shop.open).ok_or(Refusal::NoSuchShop)?;
        if !terms.is_usable_at(shop_id, shop.partner) {
            return Err(Refusal::NotAtThisShop);
        }
        if by_member && terms.scan_required && !facts.scanned {
            return Err(Refusal::ScanRequired);
        }
        let employee_id = match redeemer {
            Redeemer::Member(_) => 0,
            Redeemer::Employee(employee_id) => employee_id,
            Redeemer::ByCode { employee_id, code } => {
                let holds = |code: CounterCode| code.version == facts.version && now_ms < code.lapses_at_ms;
                if !code.is_some_and(holds) {
                    return Err(Refusal::WrongCounterCode);
                }
                employee_id
            }
        };
        let mut events = self.lapsed_gift(now_ms);
        events.push(CouponEvent::Redeemed {
            redemption_id,
            member_id: self.holder_id,
            shop_id,
            employee_id,
            at_ms: now_ms,
        });
        Ok(events)
    }

    /// Whether a member may show this coupon at the counter: 2001, then 3009 3004 3001 3003 4002.
    pub fn may_be_shown(&self, member_id: i64, now_ms: i64) -> Result<(), Refusal> {
        self.refuse_unless_holder(member_id)?;
        self.refuse_if_voided_or_used()?;
        if self.pending_gift(now_ms).is_some() {
            return Err(Refusal::BeingGiven);
        }
        match &self.issue {
            Some(issue) if issue.ends_at_ms <= now_ms => Err(Refusal::Expired),
            _ => Ok(()),
        }
    }

    /// 2001, then 3009 3004 3001 4002 3008. Asking again while pending changes nothing.
    fn give(&self, member_id: i64, lapse_after_ms: i64, facts: &Facts) -> Result<Vec<CouponEvent>, Refusal> {
        let Some(issue) = &self.issue else {
            return Err(Refusal::NoSuchCoupon);
        };
        let now_ms = facts.at.ms;
        self.refuse_unless_holder(member_id)?;
        self.refuse_if_voided_or_used()?;
        if issue.ends_at_ms <= now_ms {
            return Err(Refusal::Expired);
        }
        if !issue.terms.givable {
            return Err(Refusal::NotGivable);
        }
        if self.pending_gift(now_ms).is_some() {
            return Ok(Vec::new());
        }
        let mut events = self.lapsed_gift(now_ms);
        events.push(CouponEvent::Given {
            gift: self.gifts.saturating_add(1),
            member_id,
            code_key: facts.gift_codes.key_id(),
            lapses_at_ms: now_ms.saturating_add(lapse_after_ms).min(issue.ends_at_ms),
            at_ms: now_ms,
        });
        Ok(events)
    }

    /// 7004 7003 7002 7001, and success again for the receiver who repeats his code.
    fn receive(&self, member_id: i64, code: i64, facts: &Facts) -> Result<Vec<CouponEvent>, Refusal> {
        if self.was_received_with(member_id, code, facts) {
            return Ok(Vec::new());
        }
        if let Some(rejected) = self.try_code(member_id, code, facts)? {
            return Ok(vec![rejected]);
        }
        let Some(gift) = self.pending_gift(facts.at.ms) else {
            return Err(Refusal::NothingToReceive);
        };
        Ok(vec![CouponEvent::Received {
            gift: gift.number,
            giver_id: self.holder_id,
            member_id,
            at_ms: facts.at.ms,
        }])
    }

    /// Whether this is its present holder, repeating the code by which he received it.
    fn was_received_with(&self, member_id: i64, code: i64, facts: &Facts) -> bool {
        self.pending_gift(facts.at.ms).is_none()
            && self.holder_id == member_id
            && self
                .received_gift
                .as_ref()
                .is_some_and(|gift| facts.gift_codes.matches(facts.id, gift.number, &gift.code_key, code))
    }

    /// Tries a code on the pending gift: a refusal, the event of a wrong code, or nothing when it is right.
    fn try_code(&self, member_id: i64, code: i64, facts: &Facts) -> Result<Option<CouponEvent>, Refusal> {
        let Some(gift) = self.pending_gift(facts.at.ms) else {
            return Err(Refusal::NothingToReceive);
        };
        if self.holder_id == member_id {
            return Err(Refusal::OwnGift);
        }
        if gift.wrong_codes >= GIFT_TRIES {
            return Err(Refusal::GiftLocked);
        }
        if facts.gift_codes.matches(facts.id, gift.number, &gift.code_key, code) {
            return Ok(None);
        }
        Ok(Some(CouponEvent::GiftCodeRejected { gift: gift.number, member_id, at_ms: facts.at.ms }))
    }

    /// 2004, then 3012. Reversed past its end date it expires at once: nothing would sweep it again.
    fn reverse(
        &self,
        redemption_id: i64,
        employee_id: i64,
        reason: &str,
        within_ms: i64,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        let now_ms = facts.at.ms;
        let Some(redemption) = self.redemptions.iter().find(|past| past.id == redemption_id) else {
            return Err(Refusal::NoSuchRedemption);
        };
        if redemption.reversed_at_ms != 0 || now_ms.saturating_sub(redemption.at_ms) > within_ms {
            return Err(Refusal::NotReversible);
        }
        let mut events = vec![CouponEvent::RedemptionReversed {
            redemption_id,
            employee_id,
            reason: reason.to_owned(),
            at_ms: now_ms,
        }];
        if self.issue.as_ref().is_some_and(|issue| issue.ends_at_ms <= now_ms) && !self.expiry_recorded {
            events.push(CouponEvent::Expired { at_ms: now_ms });
        }
        Ok(events)
    }

    /// 2001, then 3004 3001. Where the end lies in the past it expires at once: nothing would sweep it again.
    fn move_end(
        &self,
        end_date: chrono::NaiveDate,
        employee_id: i64,
        reason: &str,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        let Some(issue) = &self.issue else {
            return Err(Refusal::NoSuchCoupon);
        };
        self.refuse_if_voided_or_used()?;
        if end_date < issue.start_date {
            return Err(Refusal::field("end_date", Wrong::EndBeforeStart));
        }
        if end_date == issue.end_date {
            return Ok(Vec::new());
        }
        let now_ms = facts.at.ms;
        let (_, ends_at_ms) = valid_instants(facts.zone, (issue.start_date, end_date));
        let mut events = self.lapsed_gift(now_ms);
        let reason = reason.to_owned();
        events.push(CouponEvent::EndMoved { end_date, ends_at_ms, employee_id, reason, at_ms: now_ms });
        if ends_at_ms <= now_ms {
            // A gift that waits lapses with the coupon.
            events.extend(
                self.pending_gift(now_ms)
                    .map(|gift| CouponEvent::GiftLapsed { gift: gift.number, at_ms: now_ms }),
            );
            events.push(CouponEvent::Expired { at_ms: now_ms });
        }
        Ok(events)
    }

    /// 2001, then 3009 3004 3006 3005.
    fn evaluate(
        &self,
        member_id: i64,
        score: u8,
        text: &str,
        salt: &str,
        facts: &Facts,
    ) -> Result<Vec<CouponEvent>, Refusal> {
        self.refuse_unless_holder(member_id)?;
        if self.voided_at_ms.is_some() {
            return Err(Refusal::Voided);
        }
        if self.redemption().is_none() {
            return Err(Refusal::NotUsedYet);
        }
        if self.review.is_some() {
            return Err(Refusal::AlreadyReviewed);
        }
        let text_hash = crate::secrets::review_hash(salt, text);
        Ok(vec![CouponEvent::Evaluated { member_id, score, text_hash, at_ms: facts.at.ms }])
    }

    fn refuse_unless_holder(&self, member_id: i64) -> Result<(), Refusal> {
        if !self.has_held(member_id) {
            return Err(Refusal::NoSuchCoupon);
        }
        if self.holder_id == member_id { Ok(()) } else { Err(Refusal::GivenAway) }
    }

    fn refuse_if_voided_or_used(&self) -> Result<(), Refusal> {
        if self.voided_at_ms.is_some() {
            return Err(Refusal::Voided);
        }
        self.refuse_if_used()
    }

    fn refuse_if_used(&self) -> Result<(), Refusal> {
        match self.redemption() {
            Some(used) => {
                Err(Refusal::AlreadyUsed { redemption_id: used.id, at_ms: used.at_ms, shop_id: used.shop_id })
            }
            None => Ok(()),
        }
    }

    fn has_held(&self, member_id: i64) -> bool {
        self.holdings.contains_key(&member_id)
    }

    /// What time alone has done by now and nobody wrote down yet.
    fn due(&self, now_ms: i64) -> Vec<CouponEvent> {
        let mut events = self.lapsed_gift(now_ms);
        let ended = self.issue.as_ref().is_some_and(|issue| issue.ends_at_ms <= now_ms);
        if ended && self.is_in_hand() && !self.expiry_recorded {
            events.push(CouponEvent::Expired { at_ms: now_ms });
        }
        events
    }

    fn lapsed_gift(&self, now_ms: i64) -> Vec<CouponEvent> {
        match &self.gift {
            Some(gift) if gift.lapses_at_ms <= now_ms => {
                vec![CouponEvent::GiftLapsed { gift: gift.number, at_ms: now_ms }]
            }
            _ => Vec::new(),
        }
    }
}

/// 2005 2003 5006: what a partner hands out comes from an allotment of that very definition, and he and it are open.
fn refuse_unless_allotted(definition_id: i64, facts: &Facts) -> Result<(), Refusal> {
    let allotment = facts.allotment.as_ref().filter(|allotment| allotment.num().is_some());
    let allotment =
        allotment.filter(|allotment| allotment.definition_id == definition_id).ok_or(Refusal::NoSuchRule)?;
    if !facts.shop.as_ref().is_some_and(|partner| partner.open) {
        return Err(Refusal::NoSuchShop);
    }
    if allotment.has_ended(facts.at.day) { Err(Refusal::NotOnOffer) } else { Ok(()) }
}
