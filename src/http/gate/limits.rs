//! How often anybody may ask, by what he asks for: in memory, per server, forgotten at its end.
//!
//! GCRA: for each caller and each address one instant is kept, until when what he has asked is paid for. Whoever has not
//! asked for a while has no instant at all, so memory holds those who are busy now, and never more than [`MAX_KEYS`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::address::short;
use crate::access::{Role, reaches};
use crate::http::routes;
use crate::identity::Caller;

/// The most callers and addresses that are remembered, each once a class.
pub const MAX_KEYS: usize = 65_536;

/// An address may ask so many times as often as one caller: a shop, an office or a mobile network is many people.
pub const ADDRESS_FACTOR: u64 = 10;

/// Where people sign in, and so where passwords are guessed.
const SIGN_IN: &[&str] = &[
    "/user/login",
    "/user/setpassword",
    "/wechat/login",
    "/wechat/callback",
    "/setup",
    "/oidc/login",
    "/oidc/callback",
];

/// Where gift codes are guessed. Failures are counted in the database besides.
const GIFT_CODES: &[&str] = &["/client/getcoupon", "/client/giftinfo"];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Signing in.
    SignIn,
    /// A gift, by its code.
    Gift,
    /// What a member reads.
    MemberRead,
    /// What a member does.
    MemberWrite,
    /// What employees, operators and partners do and read.
    Office,
    /// `/v1`: auditors and machines.
    Audit,
    /// Everything else: health, pages, paths that are none.
    Open,
}

/// The class of each of the manual's routes.
static BY_PATH: LazyLock<HashMap<&'static str, Class>> = LazyLock::new(|| {
    let class = |route: &routes::Route| match (reaches(Role::Member, route.path), route.writes) {
        ([], _) => Class::Office,
        (_, true) => Class::MemberWrite,
        (_, false) => Class::MemberRead,
    };
    let routes = routes::ALL.iter().map(|route| (route.path, class(route)));
    let guessed = GIFT_CODES.iter().map(|path| (*path, Class::Gift));
    routes.chain(guessed).chain(SIGN_IN.iter().map(|path| (*path, Class::SignIn))).collect()
});

impl Class {
    /// Every class with what one caller may do in it unless told otherwise.
    pub const DEFAULTS: [(Self, Limit); 7] = [
        (Self::SignIn, Limit { times: 12, period: MINUTE }),
        (Self::Gift, Limit { times: 30, period: MINUTE }),
        (Self::MemberRead, Limit { times: 1_200, period: MINUTE }),
        (Self::MemberWrite, Limit { times: 600, period: MINUTE }),
        (Self::Office, Limit { times: 12_000, period: MINUTE }),
        (Self::Audit, Limit { times: 12_000, period: MINUTE }),
        (Self::Open, Limit { times: 600, period: MINUTE }),
    ];

    /// Its name in settings and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Gift => "gift",
            Self::MemberRead => "member-read",
            Self::MemberWrite => "member-write",
            Self::Office => "office",
            Self::Audit => "audit",
            Self::Open => "open",
        }
    }

    /// The class of a path, without the base path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match BY_PATH.get(path) {
            Some(class) => *class,
            None if path.starts_with("/v1/") => Self::Audit,
            None => Self::Open,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// So many at once, and as many again spread over each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    times: u32,
    period: Duration,
}

impl Limit {
    /// `30/m`
    fn parse(text: &str) -> Option<Self> {
        let (times, period) = text.split_once('/')?;
        let period = match period {
            "s" => Duration::from_secs(1),
            "m" => MINUTE,
            "h" => MINUTE * 60,
            _ => return None,
        };
        let times = times.parse().ok().filter(|times| (1..=1_000_000_000).contains(times))?;
        Some(Self { times, period })
    }
}

/// The limit of each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitTable([(Class, Limit); Class::DEFAULTS.len()]);

impl Default for LimitTable {
    fn default() -> Self {
        Self(Class::DEFAULTS)
    }
}

impl LimitTable {
    /// Reads `off`, or settings like `gift=10/m` that replace the defaults; an error is a sentence.
    pub fn parse(settings: &[String]) -> Result<Option<Self>, String> {
        let mut settings = settings.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).peekable();
        if settings.next_if_eq(&"off").is_some() {
            return match settings.next() {
                None => Ok(None),
                Some(_) => Err("--limits: off stands alone".to_owned()),
            };
        }
        let mut table = Self::default();
        for setting in settings {
            let read = setting.split_once('=').and_then(|(name, limit)| {
                let entry = table.0.iter_mut().find(|(class, _)| class.name() == name)?;
                Some((entry, Limit::parse(limit)?))
            });
            let Some((entry, limit)) = read else {
                let names: Vec<_> = Class::DEFAULTS.iter().map(|(class, _)| class.name()).collect();
                return Err(format!(
                    "--limits: {:?} is not understood; give off, or settings like gift=30/m (s, m or h) of {}",
                    short(setting),
                    names.join(", ")
                ));
            };
            entry.1 = limit;
        }
        Ok(Some(table))
    }

    /// (what one request costs, what is free at once), in nanoseconds.
    fn costs(&self, class: Class, who: &Who) -> (u64, u64) {
        let limit = self.0.iter().find(|(found, _)| *found == class).map(|(_, limit)| *limit);
        let Some(Limit { times, period }) = limit else { return (0, 0) };
        let factor = if matches!(who, Who::Address(_)) { ADDRESS_FACTOR } else { 1 };
        let period = nanos(period);
        (period / (u64::from(times) * factor), period)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Somebody who has proved who he is.
    Caller(Caller),
    /// Whoever holds a session of this number, which may be none: whoever makes numbers up is counted by his address.
    Session(u64),
    /// The same of a machine's key, by its digest.
    Key(u64),
    /// Whoever sits there.
    Address(IpAddr),
}

/// He asked too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    /// For what.
    pub class: Class,
    /// When he may ask again.
    pub wait: Duration,
}

impl TooOften {
    /// The same in whole seconds, at least one.
    #[must_use]
    pub fn retry_after_s(&self) -> u32 {
        u32::try_from(self.wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

/// What is remembered of everybody who asks.
#[derive(Debug)]
pub struct Limiter {
    table: LimitTable,
    /// Until when it is paid for, in nanoseconds since the limiter began. One lock: it is held for one look-up.
    paid_until: Mutex<HashMap<(Class, Who), u64>>,
}

impl Limiter {
    /// A limiter that remembers nobody yet.
    #[must_use]
    pub fn new(table: LimitTable) -> Self {
        Self { table, paid_until: Mutex::default() }
    }

    /// Counts a request, or says that it is one too many; a refused one is not counted. `now` is the time since the
    /// limiter began.
    pub fn take(&self, class: Class, who: Who, now: Duration) -> Result<(), TooOften> {
        let (cost, free) = self.table.costs(class, &who);
        let now = nanos(now);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = paid_until.get_mut(&(class, who)) {
            let next = (*until).max(now).saturating_add(cost);
            if next - now > free {
                return Err(TooOften { class, wait: Duration::from_nanos(next - now - free) });
            }
            *until = next;
            return Ok(());
        }
        if paid_until.len() >= MAX_KEYS {
            make_room(&mut paid_until, now);
        }
        paid_until.insert((class, who), now.saturating_add(cost));
        Ok(())
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paid_until.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets those who have paid for everything; where that is not enough, the eighth that owes least: with them the least
/// is lost, and whoever is being held back stays so. An eighth at a time, so that a flood of new keys pays for it once
/// in a while.
fn make_room(paid_until: &mut HashMap<(Class, Who), u64>, now: u64) {
    paid_until.retain(|_, until| *until > now);
    if paid_until.len() <= MAX_KEYS / 8 * 7 {
        return;
    }
    let mut all: Vec<u64> = paid_until.values().copied().collect();
    let (_, least, _) = all.select_nth_unstable(MAX_KEYS / 8);
    let (least, mut left) = (*least, MAX_KEYS / 8);
    paid_until.retain(|_, until| {
        let goes = *until <= least && left > 0;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MEMBER: Who = Who::Caller(Caller::Member(439));

    fn limiter(settings: &str) -> Limiter {
        let settings: Vec<_> = settings.split(',').map(ToOwned::to_owned).collect();
        Limiter::new(LimitTable::parse(&settings).unwrap().unwrap())
    }

    fn address(n: u32) -> Who {
        Who::Address(IpAddr::from(std::net::Ipv4Addr::from_bits(n)))
    }

    #[test]
    fn so_many_at_once_and_then_one_by_one() {
        let limiter = limiter("gift=6/m");
        let mut now = SECOND * 1_000;
        for _ in 0..6 {
            assert_eq!(limiter.take(Class::Gift, MEMBER, now), Ok(()));
        }
        let refused = limiter.take(Class::Gift, MEMBER, now).unwrap_err();
        assert_eq!((refused.wait, refused.retry_after_s()), (SECOND * 10, 10));
        // Asking on costs nothing, and helps nothing.
        now += SECOND * 9;
        assert_eq!(limiter.take(Class::Gift, MEMBER, now).unwrap_err().retry_after_s(), 1);
        now += SECOND;
        assert_eq!(limiter.take(Class::Gift, MEMBER, now), Ok(()));
        assert!(limiter.take(Class::Gift, MEMBER, now).is_err());
        now += SECOND * 60;
        for _ in 0..6 {
            assert_eq!(limiter.take(Class::Gift, MEMBER, now), Ok(()));
        }
        assert!(limiter.take(Class::Gift, MEMBER, now).is_err());
    }

    #[test]
    fn each_class_and_each_caller_is_counted_by_itself_and_an_address_ten_times() {
        let limiter = limiter("gift=1/h,member-read=1/h");
        let refused = |class, who| limiter.take(class, who, SECOND).is_err();
        assert!(!refused(Class::Gift, MEMBER) && refused(Class::Gift, MEMBER));
        assert!(!refused(Class::MemberRead, MEMBER) && refused(Class::MemberRead, MEMBER));
        assert!(!refused(Class::Gift, Who::Caller(Caller::Member(442))));
        assert!(!refused(Class::Gift, Who::Caller(Caller::Employee(439))));
        assert!((0..10).all(|_| !refused(Class::Gift, address(1))) && refused(Class::Gift, address(1)));
        assert!(!refused(Class::Gift, address(2)));
    }

    #[test]
    fn memory_is_bounded_and_whoever_is_held_back_stays_so() {
        let limiter = limiter("gift=2/h,open=1/h");
        let now = SECOND;
        assert!(
            limiter.take(Class::Gift, MEMBER, now).is_ok() && limiter.take(Class::Gift, MEMBER, now).is_ok()
        );
        assert!(limiter.take(Class::Gift, MEMBER, now).is_err());
        for n in 0..3 * MAX_KEYS as u32 {
            assert_eq!(limiter.take(Class::Open, address(n), now), Ok(()));
        }
        assert!(limiter.len() <= MAX_KEYS);
        assert!(limiter.take(Class::Gift, MEMBER, now).is_err(), "a flood of addresses has freed him");
        // Once they have paid, they go as soon as room is needed.
        let later = SECOND * 7_200;
        for n in 0..MAX_KEYS as u32 {
            assert_eq!(limiter.take(Class::Open, address(n + (1 << 30)), later), Ok(()));
        }
        assert!(limiter.len() <= MAX_KEYS);
    }

    #[test]
    fn every_path_has_its_class() {
        for (path, class) in [
            ("/user/login", Class::SignIn),
            ("/setup", Class::SignIn),
            ("/client/getcoupon", Class::Gift),
            ("/client/giftinfo", Class::Gift),
            ("/client/couponlist", Class::MemberRead),
            ("/client/auditcoupon", Class::MemberWrite),
            ("/wechat/receive", Class::MemberWrite),
            ("/elecoupons/add", Class::Office),
            ("/businesshome/get", Class::Office),
            ("/v1/events", Class::Audit),
            ("/healthz", Class::Open),
            ("/nothing", Class::Open),
            ("", Class::Open),
        ] {
            assert_eq!(Class::of(path), class, "{path}");
        }
    }

    #[test]
    fn settings_that_are_none_are_told() {
        let parse =
            |text: &str| LimitTable::parse(&text.split(',').map(ToOwned::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("off"), Ok(None));
        assert_eq!(parse(""), Ok(Some(LimitTable::default())));
        assert!(parse("gift=5/h,audit=1/s").is_ok());
        for wrong in [
            "on",
            "gift",
            "gift=",
            "gift=5",
            "gift=0/m",
            "gift=-1/m",
            "gift=5/d",
            "gifts=5/m",
            "gift=9999999999/s",
            "off,gift=1/m",
            "gift=1/m,off",
        ] {
            assert!(parse(wrong).unwrap_err().starts_with("--limits: "), "{wrong}");
        }
    }
}
