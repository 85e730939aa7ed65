//! The single checks, and what they rest on: days and validity. Each command lists them in the order of the contract's table.

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, NaiveTime, TimeZone};
use chrono_tz::Tz;
use serde_json::json;

use super::wire::{ensure, refusal, unix_seconds};
use super::{Check, Coupon, Gift, Member, Model, ModelDefinition, Redemption, Refusal, code};

impl Model {
    /// "no such coupon, or not yours: same answer". A former giver's coupon is still his to see.
    pub(super) fn coupon_of(&self, coupon_id: i64, member_id: i64) -> Result<&Coupon, Refusal> {
        self.coupons
            .get(&coupon_id)
            .filter(|coupon| coupon.rows.contains_key(&member_id))
            .ok_or(refusal(code::NO_SUCH_COUPON))
    }

    /// "already used (data: `id`, `create_date`, `shop_id` of that use)".
    pub(super) fn not_used(&self, coupon: &Coupon) -> Check {
        let Some(redemption) = self.standing_redemption(coupon) else {
            return Ok(());
        };
        let data = json!({
            "id": redemption.id,
            "create_date": unix_seconds(redemption.at_ms),
            "shop_id": redemption.shop_id,
        });
        Err(Refusal { code: code::ALREADY_USED, data })
    }

    pub(super) fn standing_redemption(&self, coupon: &Coupon) -> Option<&Redemption> {
        self.redemptions.get(&coupon.used_by_redemption?)
    }

    /// "`start_date` and `end_date` are whole local days, both inclusive."
    pub(super) fn not_expired(&self, now_ms: i64, coupon: &Coupon) -> Check {
        ensure(self.today(now_ms) <= coupon.end, code::EXPIRED)
    }

    pub(super) fn started(&self, now_ms: i64, coupon: &Coupon) -> Check {
        ensure(coupon.start <= self.today(now_ms), code::NOT_STARTED)
    }

    /// "Monday=1 … Sunday=7, empty = every day".
    pub(super) fn is_weekday_of(&self, now_ms: i64, coupon: &Coupon) -> bool {
        let weekday = self.today(now_ms).weekday().number_from_monday();
        let use_week = &coupon.definition.use_week;
        use_week.is_empty() || use_week.iter().any(|day| u32::from(*day) == weekday)
    }

    /// "no such shop, shop closed".
    pub(super) fn shop_is_open(&self, shop_id: i64) -> Check {
        ensure(self.shops.get(&shop_id).is_some_and(|shop| shop.open), code::NO_SUCH_SHOP)
    }

    /// 2003 3002.
    pub(super) fn shop_takes(&self, shop_id: i64, coupon: &Coupon) -> Check {
        self.shop_is_open(shop_id)?;
        ensure(self.is_listed(shop_id, coupon), code::NOT_AT_THIS_SHOP)
    }

    /// "`shop_ids` "0" or empty = every own shop, never a partner."
    pub(super) fn is_listed(&self, shop_id: i64, coupon: &Coupon) -> bool {
        let shop_ids = &coupon.definition.shop_ids;
        let is_own = self.shops.get(&shop_id).is_some_and(|shop| shop.partner.is_none());
        shop_ids.contains(&shop_id) || (shop_ids.is_empty() && is_own)
    }

    /// "Where the definition has `need_scan`=1 the signed `audit_url` of that very shop is required."
    pub(super) fn shop_was_scanned(&self, shop_id: i64, coupon: &Coupon, audit_url: &str) -> Check {
        let is_that_shop = self.shop_urls.get(audit_url) == Some(&shop_id);
        ensure(!coupon.definition.need_scan || is_that_shop, code::QR_REQUIRED)
    }
}

/// "Dates are the merchant's local time".
impl Model {
    pub(super) fn local(&self, at_ms: i64) -> DateTime<Tz> {
        DateTime::from_timestamp_millis(at_ms).unwrap_or_default().with_timezone(&self.zone)
    }

    pub(super) fn today(&self, now_ms: i64) -> NaiveDate {
        self.local(now_ms).date_naive()
    }

    /// `2018-11-24 10:31:41`.
    pub(super) fn local_time(&self, at_ms: i64) -> String {
        self.local(at_ms).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The first instant of the next local day. A zone may skip midnight, hence the search.
    pub(super) fn first_instant_after(&self, day: NaiveDate) -> i64 {
        let midnight = (day + Days::new(1)).and_time(NaiveTime::MIN);
        (0..24)
            .find_map(|hours| self.zone.from_local_datetime(&(midnight + Duration::hours(hours))).earliest())
            .map_or(i64::MAX, |instant| instant.timestamp_millis())
    }
}

pub(super) fn still_holds(member_id: i64, coupon: &Coupon) -> Check {
    ensure(coupon.holder == member_id, code::GIVEN_AWAY)
}

pub(super) fn not_voided(coupon: &Coupon) -> Check {
    ensure(!coupon.voided, code::VOIDED)
}

/// "While pending nobody can redeem it."
pub(super) fn not_being_given(now_ms: i64, coupon: &Coupon) -> Check {
    ensure(pending_gift(coupon, now_ms).is_none(), code::BEING_GIVEN)
}

pub(super) fn pending_gift(coupon: &Coupon, now_ms: i64) -> Option<&Gift> {
    coupon.gift.as_ref().filter(|gift| now_ms < gift.lapses_ms)
}

/// The first and last day of a coupon issued today; `None` where the member's card gives none.
pub(super) fn validity(
    definition: &ModelDefinition,
    member: &Member,
    today: NaiveDate,
) -> Option<(NaiveDate, NaiveDate)> {
    match definition.validity_type {
        1 => Some((date(&definition.start_num)?, date(&definition.end_num)?)),
        // "start = receipt day + start_num, end = start + end_num − 1".
        2 => {
            let start = today + Days::new(definition.start_num.parse().ok()?);
            let days_valid: u64 = definition.end_num.parse().ok()?;
            Some((start, start + Days::new(days_valid.checked_sub(1)?)))
        }
        // "until the member's card ends (none → 5006)"; a card that has ended is as good as none.
        _ => member.card_end.filter(|card_end| today <= *card_end).map(|card_end| (today, card_end)),
    }
}

pub(super) fn date(text: &str) -> Option<NaiveDate> {
    text.parse().ok()
}

/// `1,2,3`; empty = every day.
pub(super) fn use_week(definition: &ModelDefinition) -> String {
    let days: Vec<String> = definition.use_week.iter().map(u8::to_string).collect();
    days.join(",")
}
