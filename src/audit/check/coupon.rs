//! A coupon as far as the rules of its use need it, and the rules themselves, written down a second time.
//!
//! Everything is judged by the command's own time, which is what the ledger decided by. Not shared with
//! `crate::coupon` on purpose.

use std::borrow::Cow;

use serde::Deserialize;

/// Wrong codes that lock a gift.
const GIFT_TRIES: u8 = 5;

/// What an event says, as far as it is needed.
#[derive(Deserialize)]
pub(super) enum Fact<'a> {
    #[serde(borrow)]
    Issued(Birth<'a>),
    Imported {
        #[serde(borrow)]
        issue: Birth<'a>,
        past: Past,
        at_ms: i64,
    },
    Viewed {
        member_id: i64,
        at_ms: i64,
    },
    Given {
        gift: u32,
        member_id: i64,
        lapses_at_ms: i64,
        at_ms: i64,
    },
    GiftCodeRejected {
        gift: u32,
        member_id: i64,
        at_ms: i64,
    },
    GiftWithdrawn {
        gift: u32,
        at_ms: i64,
    },
    GiftLapsed {
        gift: u32,
        at_ms: i64,
    },
    Received {
        gift: u32,
        giver_id: i64,
        member_id: i64,
        at_ms: i64,
    },
    Redeemed {
        redemption_id: i64,
        member_id: i64,
        at_ms: i64,
    },
    RedemptionReversed {
        redemption_id: i64,
        at_ms: i64,
    },
    Evaluated {
        member_id: i64,
        score: u8,
        at_ms: i64,
    },
    Expired {
        at_ms: i64,
    },
    EndMoved {
        ends_at_ms: i64,
        at_ms: i64,
    },
    Voided {
        at_ms: i64,
    },
}

/// How it came into being.
#[derive(Deserialize)]
pub(super) struct Birth<'a> {
    pub(super) definition_id: i64,
    member_id: i64,
    starts_at_ms: i64,
    ends_at_ms: i64,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(default)]
    source_id: i64,
    terms: Terms,
    at_ms: i64,
}

#[derive(Deserialize)]
struct Terms {
    givable: bool,
}

impl Birth<'_> {
    fn judge(&self) -> Result<(), Broken> {
        is_id(self.member_id, "member")?;
        rule(self.starts_at_ms < self.ends_at_ms, "dates", || "it ends before it starts".to_owned())
    }
}

/// What had become of one that was taken over from another system.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Past {
    Unused,
    Used { redemption_id: i64 },
    Voided {},
}

impl Fact<'_> {
    /// When it was done.
    pub(super) fn at_ms(&self) -> i64 {
        match self {
            Self::Issued(birth) => birth.at_ms,
            Self::Imported { at_ms, .. }
            | Self::Viewed { at_ms, .. }
            | Self::Given { at_ms, .. }
            | Self::GiftCodeRejected { at_ms, .. }
            | Self::GiftWithdrawn { at_ms, .. }
            | Self::GiftLapsed { at_ms, .. }
            | Self::Received { at_ms, .. }
            | Self::Redeemed { at_ms, .. }
            | Self::RedemptionReversed { at_ms, .. }
            | Self::Evaluated { at_ms, .. }
            | Self::Expired { at_ms }
            | Self::EndMoved { at_ms, .. }
            | Self::Voided { at_ms } => *at_ms,
        }
    }

    pub(super) fn birth(&self) -> Option<&Birth<'_>> {
        match self {
            Self::Issued(birth) | Self::Imported { issue: birth, .. } => Some(birth),
            _ => None,
        }
    }
}

/// A gift that waits.
#[derive(Clone, Copy)]
struct Gift {
    number: u32,
    lapses_at_ms: i64,
    wrong_codes: u8,
}

/// A coupon in few bytes: there are as many as were ever issued.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and a byte")]
pub(super) struct Coupon {
    born: bool,
    pub(super) sequence: i64,
    pub(super) definition_id: i64,
    /// 0 = from none.
    pub(super) allotment_id: i64,
    holder_id: i64,
    starts_at_ms: i64,
    ends_at_ms: i64,
    /// The use that stands. Whatever number an event gives it: a forged 0 is a use as well.
    redemption: Option<i64>,
    gift: Option<Gift>,
    gifts: u32,
    givable: bool,
    read: bool,
    expired: bool,
    reviewed: bool,
    pub(super) voided: bool,
}

/// A rule and how it is broken.
pub(super) type Broken = (&'static str, String);

impl Coupon {
    /// Whether its first event was seen.
    pub(super) fn is_born(&self) -> bool {
        self.born
    }

    /// Takes the next event. One that breaks a rule is taken all the same, so that what follows is judged by it.
    pub(super) fn take(&mut self, fact: &Fact<'_>) -> Option<Broken> {
        let broken = self.judge(fact).err();
        self.evolve(fact);
        broken
    }

    fn judge(&self, fact: &Fact<'_>) -> Result<(), Broken> {
        if fact.birth().is_some() == self.is_born() {
            let what = if self.is_born() { "it is issued a second time" } else { "it was never issued" };
            return Err(("issued once", what.to_owned()));
        }
        match *fact {
            Fact::Issued(ref birth) => birth.judge(),
            Fact::Imported { ref issue, ref past, .. } => {
                issue.judge()?;
                match *past {
                    Past::Used { redemption_id } => is_id(redemption_id, "redemption"),
                    Past::Unused | Past::Voided {} => Ok(()),
                }
            }
            Fact::Viewed { member_id, .. } => {
                self.by_holder(member_id)?;
                rule(!self.read, "viewed once", || "its holder has opened it before".to_owned())
            }
            Fact::Given { gift, member_id, lapses_at_ms, at_ms } => {
                self.by_holder(member_id)?;
                self.in_hand()?;
                self.not_ended(at_ms)?;
                rule(self.givable, "given", || "its terms do not let it be given away".to_owned())?;
                rule(self.gift.is_none(), "given", || "it is given while a gift waits".to_owned())?;
                rule(Some(gift) == self.gifts.checked_add(1), "given", || {
                    format!("it is gift {gift}, and there were {} before", self.gifts)
                })?;
                rule(at_ms < lapses_at_ms && lapses_at_ms <= self.ends_at_ms, "given", || {
                    format!("the gift waits until {lapses_at_ms}, the coupon ends at {}", self.ends_at_ms)
                })
            }
            Fact::GiftCodeRejected { gift, member_id, at_ms } => self.tried(gift, member_id, at_ms).map(drop),
            Fact::Received { gift, giver_id, member_id, at_ms } => {
                is_id(member_id, "member")?;
                self.by_holder(giver_id)?;
                self.tried(gift, member_id, at_ms).map(drop)
            }
            Fact::GiftWithdrawn { gift, at_ms } => self.waiting(gift, at_ms).map(drop),
            Fact::GiftLapsed { gift, at_ms } => {
                let lapsed = self.gift.is_some_and(|own| own.number == gift && own.lapses_at_ms <= at_ms);
                rule(lapsed, "given", || format!("gift {gift} lapses, and does not wait or not so short"))
            }
            Fact::Redeemed { redemption_id, member_id, at_ms } => {
                is_id(redemption_id, "redemption")?;
                self.by_holder(member_id)?;
                self.in_hand()?;
                self.not_ended(at_ms)?;
                rule(self.starts_at_ms <= at_ms, "used within its dates", || {
                    format!("it is used at {at_ms} and starts at {}", self.starts_at_ms)
                })?;
                rule(self.gift.is_none(), "used by its holder", || {
                    "it is used while it is being given".to_owned()
                })
            }
            Fact::RedemptionReversed { redemption_id, .. } => {
                rule(self.redemption == Some(redemption_id), "reversed", || {
                    format!("redemption {redemption_id} is taken back, which does not stand")
                })
            }
            Fact::Evaluated { member_id, score, .. } => {
                self.by_holder(member_id)?;
                rule(self.redemption.is_some() && !self.voided, "reviewed", || {
                    "it is reviewed without having been used".to_owned()
                })?;
                rule(!self.reviewed && (1..=5).contains(&score), "reviewed", || {
                    "it is reviewed a second time, or with a score that there is not".to_owned()
                })
            }
            Fact::Expired { at_ms } => {
                self.in_hand()?;
                rule(self.ends_at_ms <= at_ms && !self.expired, "expired", || {
                    format!("it expires at {at_ms}, and ends at {} or has expired before", self.ends_at_ms)
                })
            }
            Fact::EndMoved { ends_at_ms, .. } => {
                self.in_hand()?;
                rule(self.starts_at_ms < ends_at_ms, "dates", || {
                    "its end is moved before its start".to_owned()
                })
            }
            Fact::Voided { .. } => self.in_hand(),
        }
    }

    fn by_holder(&self, member_id: i64) -> Result<(), Broken> {
        rule(member_id == self.holder_id, "holder", || {
            format!("member {member_id} is said to hold it, and member {} does", self.holder_id)
        })
    }

    /// Neither used nor voided.
    fn in_hand(&self) -> Result<(), Broken> {
        rule(!self.voided, "voided", || "something happens to it after it was voided".to_owned())?;
        match self.redemption {
            None => Ok(()),
            Some(id) => Err(("used once", format!("it has been used by redemption {id}, and that stands"))),
        }
    }

    fn not_ended(&self, at_ms: i64) -> Result<(), Broken> {
        rule(at_ms < self.ends_at_ms, "used within its dates", || {
            format!("it is used or given at {at_ms}, and ended at {}", self.ends_at_ms)
        })
    }

    /// The gift that someone else can receive.
    fn waiting(&self, number: u32, at_ms: i64) -> Result<Gift, Broken> {
        let gift = self.gift.filter(|gift| gift.number == number && at_ms < gift.lapses_at_ms);
        gift.ok_or_else(|| ("received", format!("gift {number} does not wait at {at_ms}")))
    }

    fn tried(&self, number: u32, member_id: i64, at_ms: i64) -> Result<Gift, Broken> {
        let gift = self.waiting(number, at_ms)?;
        rule(member_id != self.holder_id, "received", || "its giver receives it or tries to".to_owned())?;
        rule(gift.wrong_codes < GIFT_TRIES, "received", || format!("gift {number} was locked"))?;
        Ok(gift)
    }

    fn evolve(&mut self, fact: &Fact<'_>) {
        match *fact {
            Fact::Issued(ref birth) => self.begin(birth),
            Fact::Imported { ref issue, ref past, .. } => {
                self.begin(issue);
                match *past {
                    Past::Unused => {}
                    Past::Used { redemption_id } => self.redemption = Some(redemption_id),
                    Past::Voided {} => self.voided = true,
                }
            }
            Fact::Viewed { .. } => self.read = true,
            Fact::Given { gift, lapses_at_ms, .. } => {
                self.gifts = gift;
                self.gift = Some(Gift { number: gift, lapses_at_ms, wrong_codes: 0 });
            }
            Fact::GiftCodeRejected { .. } => {
                if let Some(gift) = &mut self.gift {
                    gift.wrong_codes = gift.wrong_codes.saturating_add(1);
                }
            }
            Fact::GiftWithdrawn { .. } | Fact::GiftLapsed { .. } => self.gift = None,
            Fact::Received { member_id, .. } => {
                self.gift = None;
                self.holder_id = member_id;
                self.read = false;
            }
            Fact::Redeemed { redemption_id, .. } => self.redemption = Some(redemption_id),
            Fact::RedemptionReversed { .. } => self.redemption = None,
            Fact::Evaluated { .. } => self.reviewed = true,
            Fact::Expired { .. } => self.expired = true,
            Fact::EndMoved { ends_at_ms, .. } => {
                self.ends_at_ms = ends_at_ms;
                self.expired = false;
                if let Some(gift) = &mut self.gift {
                    gift.lapses_at_ms = gift.lapses_at_ms.min(ends_at_ms);
                }
            }
            Fact::Voided { .. } => {
                self.gift = None;
                self.voided = true;
            }
        }
    }

    fn begin(&mut self, birth: &Birth<'_>) {
        *self = Self {
            born: true,
            sequence: self.sequence,
            definition_id: birth.definition_id,
            allotment_id: if birth.source == "partner" { birth.source_id } else { 0 },
            holder_id: birth.member_id,
            starts_at_ms: birth.starts_at_ms,
            ends_at_ms: birth.ends_at_ms,
            givable: birth.terms.givable,
            ..Self::default()
        };
    }
}

/// An id counts from 1 on.
fn is_id(id: i64, of: &str) -> Result<(), Broken> {
    rule(id > 0, "ids", || format!("it names {of} {id}, which there cannot be"))
}

fn rule(holds: bool, name: &'static str, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((name, what())) }
}
