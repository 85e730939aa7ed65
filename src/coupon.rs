//! The coupon (會員電子券): its events, what they make of it, and what may be done with it.
//!
//! Pure and total: no clock, no randomness, no IO, and no panic on any event ever written. A coupon keeps its id and
//! its one stream when it changes hands. What may be done with it is decided in `coupon/decide.rs`.

mod decide;

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::definition::Terms;

/// Wrong codes that lock a gift.
pub const GIFT_TRIES: u32 = 5;

/// How a coupon was born.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// 0
    #[default]
    MassSend,
    /// 1
    OrderAmount,
    /// 2
    ProductGroup,
    /// 3
    MemberLevel,
    /// 5
    OneToOne,
    /// 6
    Birthday,
    /// 7
    Partner,
    /// 8
    Claimed,
    /// 9
    Imported,
}

impl Source {
    /// The manual's `come`.
    #[must_use]
    pub fn come(self) -> i64 {
        match self {
            Self::MassSend => 0,
            Self::OrderAmount => 1,
            Self::ProductGroup => 2,
            Self::MemberLevel => 3,
            Self::OneToOne => 5,
            Self::Birthday => 6,
            Self::Partner => 7,
            Self::Claimed => 8,
            Self::Imported => 9,
        }
    }
}

/// How a coupon is born, and what is behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// How.
    pub source: Source,
    /// The send, rule, partner's allotment or import behind it, by what `source` says; 0 if none.
    pub source_id: i64,
    /// The employee behind it, 0 if none.
    pub employee_id: i64,
    /// The order behind it, 0 if none.
    pub order_id: i64,
    /// The goods behind it, 0 if none.
    pub goods_id: i64,
}

impl Origin {
    /// Nothing behind it but an employee, 0 if none.
    #[must_use]
    pub fn of(source: Source, employee_id: i64) -> Self {
        Self { source, employee_id, ..Self::default() }
    }
}

/// What the Issued event holds: the coupon as it was born, with the terms that bind it for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Its definition.
    pub definition_id: i64,
    /// The definition's terms at that moment.
    pub terms: Terms,
    /// To whom.
    pub member_id: i64,
    /// First local day of validity.
    pub start_date: NaiveDate,
    /// Last local day of validity.
    pub end_date: NaiveDate,
    /// The first instant of `start_date`, Unix milliseconds.
    pub starts_at_ms: i64,
    /// The first instant after `end_date`, Unix milliseconds.
    pub ends_at_ms: i64,
    /// How it was born.
    pub source: Source,
    /// The send, rule, group, grant or allotment behind it, by what `source` says. Left out of the event where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub source_id: i64,
    /// The employee behind it, 0 if none.
    pub employee_id: i64,
    /// The order behind it, 0 if none.
    pub order_id: i64,
    /// The goods behind it, 0 if none.
    pub goods_id: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What had become of a coupon before it was taken over from another system. Its end is not among it: dates decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Past {
    /// Nothing: it is in its holder's hand.
    #[default]
    Unused,
    /// It was used.
    Used {
        /// The redemption's id, from this ledger's.
        redemption_id: i64,
        /// Where.
        shop_id: i64,
        /// The employee who redeemed it, 0 when the member did.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was taken out of the world.
    Voided {
        /// Unix milliseconds.
        at_ms: i64,
    },
}

impl Issue {
    /// The partner's allotment that it was taken from, if it was.
    #[must_use]
    pub fn allotment_id(&self) -> Option<i64> {
        (self.source == Source::Partner && self.source_id != 0).then_some(self.source_id)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Who takes a coupon's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemer {
    /// The member himself.
    Member(i64),
    /// An employee at the counter.
    Employee(i64),
    /// An employee at the counter, by a code that the member shows.
    ByCode {
        /// The employee.
        employee_id: i64,
        /// What the code says; None = it is not ours, or there is none where one is needed.
        code: Option<CounterCode>,
    },
}

/// What a code that a member shows at the counter says of the coupon that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterCode {
    /// The version that the coupon had: any event since makes the code worthless.
    pub version: i64,
    /// From when on it is worthless, Unix milliseconds.
    pub lapses_at_ms: i64,
}

/// What happened to a coupon. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CouponEvent {
    /// It came into being in a member's hand.
    Issued(Box<Issue>),
    /// It was taken over from another system as it was there.
    Imported {
        /// As it was born there; `at_ms` is when.
        issue: Box<Issue>,
        /// What had become of it.
        past: Past,
        /// When it was taken over, Unix milliseconds.
        at_ms: i64,
    },
    /// Its holder opened it for the first time.
    Viewed {
        /// The holder.
        member_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its holder put it out for someone who knows the code.
    Given {
        /// The number of this gift on this coupon, from 1.
        gift: u32,
        /// The giver.
        member_id: i64,
        /// The key under which the code is derived; the code itself is nowhere stored.
        code_key: String,
        /// When it lapses, Unix milliseconds.
        lapses_at_ms: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Someone tried a wrong code on the pending gift.
    GiftCodeRejected {
        /// Which gift.
        gift: u32,
        /// Who tried.
        member_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// The giver took the pending gift back.
    GiftWithdrawn {
        /// Which gift.
        gift: u32,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Nobody received the gift in time.
    GiftLapsed {
        /// Which gift.
        gift: u32,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It changed hands.
    Received {
        /// Which gift.
        gift: u32,
        /// Who gave it.
        giver_id: i64,
        /// Who holds it from now on.
        member_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was used.
    Redeemed {
        /// The redemption's own id.
        redemption_id: i64,
        /// Its holder.
        member_id: i64,
        /// Where.
        shop_id: i64,
        /// The employee who redeemed it, 0 when the member did.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// The use was taken back: it is in its holder's hand again.
    RedemptionReversed {
        /// Which redemption.
        redemption_id: i64,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Why.
        reason: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its user reviewed it. The text is kept apart, so that it can be erased.
    Evaluated {
        /// The user.
        member_id: i64,
        /// 1 to 5.
        score: u8,
        /// SHA-256 over salt and text, hexadecimal.
        text_hash: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its end date passed while it was in hand. Changes no answer: dates decide.
    Expired {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its end date was moved, for everyone who holds or has held it.
    EndMoved {
        /// Last local day of validity from now on.
        end_date: NaiveDate,
        /// The first instant after it, Unix milliseconds.
        ends_at_ms: i64,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Why.
        reason: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was taken out of the world.
    Voided {
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Why.
        reason: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

impl CouponEvent {
    /// The coupon as this event brought it into being, where it did.
    #[must_use]
    pub fn birth(&self) -> Option<&Issue> {
        match self {
            Self::Issued(issue) | Self::Imported { issue, .. } => Some(issue),
            _ => None,
        }
    }
}

/// What can be asked of a coupon. The time of the command is among the [`Facts`](crate::facts::Facts).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CouponCommand {
    /// Issue it from a definition to a member.
    Issue {
        /// The definition.
        definition_id: i64,
        /// The member.
        member_id: i64,
        /// How it is born, and what is behind it.
        origin: Origin,
    },
    /// Take it over from another system, under the id that it has there.
    Import {
        /// The definition, whose terms of now bind it.
        definition_id: i64,
        /// Its holder.
        member_id: i64,
        /// First and last local day of validity.
        days: (NaiveDate, NaiveDate),
        /// When it was born there, Unix milliseconds.
        born_at_ms: i64,
        /// What has become of it.
        past: Past,
        /// The employee behind the import, 0 if none.
        employee_id: i64,
    },
    /// Open it.
    View {
        /// Who opens it.
        member_id: i64,
    },
    /// Put it out as a gift.
    Give {
        /// The giver.
        member_id: i64,
        /// How long the gift waits.
        lapse_after_ms: i64,
    },
    /// Take the pending gift back.
    Withdraw {
        /// The giver.
        member_id: i64,
    },
    /// Receive the pending gift.
    Receive {
        /// Who would have it.
        member_id: i64,
        /// The code he was told.
        code: i64,
    },
    /// See what would be received; a wrong code counts as in [`CouponCommand::Receive`].
    Peek {
        /// Who would have it.
        member_id: i64,
        /// The code he was told.
        code: i64,
    },
    /// Use it.
    Redeem {
        /// Who takes its value.
        redeemer: Redeemer,
        /// Where; the shop itself is among the facts.
        shop_id: i64,
        /// The id this redemption will have.
        redemption_id: i64,
        /// The shop's QR as scanned.
        audit_url: Option<String>,
    },
    /// Use it in an order, at its shop; together with the order itself.
    UseInOrder {
        /// The buyer, in whose hand it must be.
        member_id: i64,
        /// Who takes its value.
        redeemer: Redeemer,
        /// Where; the shop itself is among the facts.
        shop_id: i64,
        /// The id this redemption will have.
        redemption_id: i64,
    },
    /// Take a use back.
    Reverse {
        /// Which redemption.
        redemption_id: i64,
        /// Who.
        employee_id: i64,
        /// Why.
        reason: String,
        /// How long after the use it is still possible.
        within_ms: i64,
    },
    /// Review it.
    Evaluate {
        /// Who.
        member_id: i64,
        /// 1 to 5.
        score: u8,
        /// The text.
        text: String,
        /// What it is hashed with.
        salt: String,
    },
    /// Write down what time alone has done: a lapsed gift, a passed end date.
    Settle,
    /// Move its end date.
    MoveEnd {
        /// Last local day of validity from then on.
        end_date: NaiveDate,
        /// Who.
        employee_id: i64,
        /// Why.
        reason: String,
    },
    /// Take it out of the world.
    Void {
        /// Who.
        employee_id: i64,
        /// Why.
        reason: String,
    },
}

/// A member's time with a coupon. A holding ends when the gift is received, and its row is frozen then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Whether the holder opened it.
    pub read: bool,
    /// Who gave it to this holder, 0 = it was issued to him.
    pub given_by: i64,
    /// Who received it from this holder, 0 = nobody.
    pub received_by: i64,
    /// When this holder gave it away, kept once it was received; Unix milliseconds, 0 = never.
    pub given_at_ms: i64,
}

/// A gift that waits for its receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// Its number on this coupon.
    pub number: u32,
    /// The id of the key that makes its code.
    pub code_key: String,
    /// When it was given, Unix milliseconds.
    pub at_ms: i64,
    /// From when on nobody can receive it, Unix milliseconds.
    pub lapses_at_ms: i64,
    /// Wrong codes tried.
    pub wrong_codes: u32,
}

/// A gift that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedGift {
    /// Its number on this coupon.
    pub number: u32,
    /// The id of the key that made its code.
    pub code_key: String,
}

/// One use of a coupon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    /// Its own id.
    pub id: i64,
    /// Who held the coupon.
    pub member_id: i64,
    /// Where.
    pub shop_id: i64,
    /// The employee who redeemed it, 0 when the member did.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// When it was taken back, Unix milliseconds; 0 = it stands.
    pub reversed_at_ms: i64,
}

/// A member's review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Whose.
    pub member_id: i64,
    /// 1 to 5.
    pub score: u8,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A coupon as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coupon {
    /// None until it is issued.
    pub issue: Option<Box<Issue>>,
    /// Whose hand it is in, or was in when it was used.
    pub holder_id: i64,
    /// Everyone who has ever held it.
    pub holdings: BTreeMap<i64, Holding>,
    /// The gift that waits, lapsed or not.
    pub gift: Option<Gift>,
    /// How many gifts there have been.
    pub gifts: u32,
    /// The gift by which the present holder has it, so that he may repeat its code.
    pub received_gift: Option<ReceivedGift>,
    /// Every use, the last one possibly standing.
    pub redemptions: Vec<Redemption>,
    /// The one review.
    pub review: Option<Review>,
    /// Whether the Expired event was written.
    pub expiry_recorded: bool,
    /// When it was voided, Unix milliseconds.
    pub voided_at_ms: Option<i64>,
}

impl Coupon {
    /// The use that stands, if any.
    #[must_use]
    pub fn redemption(&self) -> Option<&Redemption> {
        self.redemptions.last().filter(|redemption| redemption.reversed_at_ms == 0)
    }

    /// The gift that can still be received at this instant.
    #[must_use]
    pub fn pending_gift(&self, now_ms: i64) -> Option<&Gift> {
        self.gift.as_ref().filter(|gift| now_ms < gift.lapses_at_ms)
    }

    /// Whether its holder can still do something with it, dates aside.
    #[must_use]
    pub fn is_in_hand(&self) -> bool {
        self.issue.is_some() && self.voided_at_ms.is_none() && self.redemption().is_none()
    }

    fn begin(&mut self, issue: &Issue) {
        self.holder_id = issue.member_id;
        self.holdings.insert(issue.member_id, Holding::default());
        self.issue = Some(Box::new(issue.clone()));
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &CouponEvent) {
        match event {
            CouponEvent::Issued(issue) => self.begin(issue),
            CouponEvent::Imported { issue, past, .. } => {
                self.begin(issue);
                match *past {
                    Past::Unused => {}
                    Past::Used { redemption_id, shop_id, employee_id, at_ms } => {
                        self.redemptions.push(Redemption {
                            id: redemption_id,
                            member_id: issue.member_id,
                            shop_id,
                            employee_id,
                            at_ms,
                            reversed_at_ms: 0,
                        });
                    }
                    Past::Voided { at_ms } => self.voided_at_ms = Some(at_ms),
                }
            }
            CouponEvent::Viewed { member_id, .. } => {
                self.holdings.entry(*member_id).or_default().read = true;
            }
            CouponEvent::Given { gift, code_key, lapses_at_ms, at_ms, .. } => {
                self.gifts = self.gifts.max(*gift);
                self.gift = Some(Gift {
                    number: *gift,
                    code_key: code_key.clone(),
                    at_ms: *at_ms,
                    lapses_at_ms: *lapses_at_ms,
                    wrong_codes: 0,
                });
            }
            CouponEvent::GiftCodeRejected { .. } => {
                if let Some(gift) = &mut self.gift {
                    gift.wrong_codes = gift.wrong_codes.saturating_add(1);
                }
            }
            CouponEvent::GiftWithdrawn { .. } | CouponEvent::GiftLapsed { .. } => self.gift = None,
            CouponEvent::Received { gift, giver_id, member_id, at_ms } => {
                let (given_at_ms, code_key) =
                    self.gift.take().map_or((*at_ms, String::new()), |gift| (gift.at_ms, gift.code_key));
                let giver = self.holdings.entry(*giver_id).or_default();
                giver.received_by = *member_id;
                giver.given_at_ms = given_at_ms;
                self.holdings.insert(*member_id, Holding { given_by: *giver_id, ..Holding::default() });
                self.holder_id = *member_id;
                self.received_gift = Some(ReceivedGift { number: *gift, code_key });
            }
            CouponEvent::Redeemed { redemption_id, member_id, shop_id, employee_id, at_ms } => {
                self.redemptions.push(Redemption {
                    id: *redemption_id,
                    member_id: *member_id,
                    shop_id: *shop_id,
                    employee_id: *employee_id,
                    at_ms: *at_ms,
                    reversed_at_ms: 0,
                });
            }
            CouponEvent::RedemptionReversed { redemption_id, at_ms, .. } => {
                for redemption in self.redemptions.iter_mut().filter(|past| past.id == *redemption_id) {
                    redemption.reversed_at_ms = *at_ms;
                }
            }
            CouponEvent::Evaluated { member_id, score, at_ms, .. } => {
                self.review = Some(Review { member_id: *member_id, score: *score, at_ms: *at_ms });
            }
            CouponEvent::Expired { .. } => self.expiry_recorded = true,
            CouponEvent::EndMoved { end_date, ends_at_ms, .. } => {
                if let Some(issue) = &mut self.issue {
                    issue.end_date = *end_date;
                    issue.ends_at_ms = *ends_at_ms;
                }
                if let Some(gift) = &mut self.gift {
                    gift.lapses_at_ms = gift.lapses_at_ms.min(*ends_at_ms);
                }
                self.expiry_recorded = false;
            }
            CouponEvent::Voided { at_ms, .. } => {
                self.gift = None;
                self.voided_at_ms = Some(*at_ms);
            }
        }
    }
}

/// Whether a coupon with these weekdays can be used on this one; none listed = every day.
#[must_use]
pub fn is_usable_on(weekdays: &[u8], weekday: u8) -> bool {
    weekdays.is_empty() || weekdays.contains(&weekday)
}
