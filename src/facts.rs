//! What a decision may know beyond its own stream.
//!
//! `decide` is pure: the ledger reads these before it asks, states in the append which streams they came from, and the
//! writer refuses the append if one of those streams has moved meanwhile.

use std::sync::Arc;

use chrono::NaiveDate;

use crate::allotment::Allotment;
use crate::clock::{Moment, Zone};
use crate::definition::Definition;
use crate::secrets::GiftCodes;
use crate::shop::Shop;

/// What the directory says of a member who is to be issued a coupon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// His level, 0 = none.
    pub level_id: i64,
    /// The last day of his member card.
    pub card_end: Option<NaiveDate>,
}

/// Everything outside the stream that a decision may depend on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The id of the stream that is decided on.
    pub id: i64,
    /// The stream's version.
    pub version: i64,
    /// When the command was given.
    pub at: Moment,
    /// The merchant's calendar.
    pub zone: Zone,
    /// The keyed function that makes gift codes: deterministic, and no copy of the database holds its key.
    pub gift_codes: GiftCodes,
    /// The definition to issue from, as issuing reads it.
    pub definition: Option<Arc<Definition>>,
    /// The member to issue to.
    pub member: Option<Membership>,
    /// The partner's allotment to issue from.
    pub allotment: Option<Arc<Allotment>>,
    /// The shop where a coupon is redeemed, or the partner whose allotment it is.
    pub shop: Option<Arc<Shop>>,
    /// Whether the member scanned that very shop's QR.
    pub scanned: bool,
}

impl Facts {
    /// Facts of a command that needs none but the time.
    #[must_use]
    pub fn at(id: i64, at: Moment, zone: Zone, gift_codes: GiftCodes) -> Self {
        Self {
            id,
            version: 0,
            at,
            zone,
            gift_codes,
            definition: None,
            member: None,
            allotment: None,
            shop: None,
            scanned: false,
        }
    }
}
