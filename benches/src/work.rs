//! What members ask for: redeeming, lists, details, claims; each answer is checked for what it must say.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use chrono::Days;
use coupon_ledger::clock::{Clock, Zone};
use memchr::memmem;

use crate::client::{Answer, Work};

/// Rows of a page of couponlist.
pub const PAGE: usize = 10;

/// A coupon and whose it is.
pub type Owned = (u32, u32);

fn post(request: &mut Vec<u8>, route: &str, token: &str, key: Option<(&str, u64)>, body: &[u8]) {
    let head = write!(
        request,
        "POST {route} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
        body.len()
    );
    let key = key.map_or(Ok(()), |(name, number)| write!(request, "idempotency-key: {name}-{number}\r\n"));
    // Writing into a Vec cannot fail.
    debug_assert!(head.is_ok() && key.is_ok());
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
}

fn get(request: &mut Vec<u8>, target: &str, token: &str) {
    let head =
        write!(request, "GET {target} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n");
    debug_assert!(head.is_ok());
}

/// Members redeem coupons, each its own.
pub struct Redeems {
    coupons: Vec<(Owned, String)>,
    asked: usize,
    keys: bool,
    stop: Option<Arc<AtomicBool>>,
    body: Vec<u8>,
}

impl Redeems {
    /// Coupons with their holders' tokens, taken from the front; with keys, each request bears an Idempotency-Key.
    pub fn new(coupons: Vec<(Owned, String)>, keys: bool) -> Self {
        Self { coupons, asked: 0, keys, stop: None, body: Vec::new() }
    }

    /// The same, which asks no more once the flag is up.
    pub fn until(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// How many were asked for.
    pub fn asked(&self) -> u64 {
        self.asked as u64
    }

    /// The coupons that were not asked for.
    pub fn left(self) -> impl Iterator<Item = Owned> {
        self.coupons.into_iter().skip(self.asked).map(|(owned, _)| owned)
    }
}

impl Work for Redeems {
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64> {
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return None;
        }
        let ((coupon, _), token) = self.coupons.get(self.asked)?;
        self.asked += 1;
        self.body.clear();
        write!(self.body, "mem_coupon_id={coupon}&shop_id=1").ok()?;
        let key = self.keys.then_some(("redeem", u64::from(*coupon)));
        post(request, "/client/auditcoupon", token, key, &self.body);
        Some(u64::from(*coupon))
    }

    fn check(&mut self, asked: u64, answer: &Answer<'_>) -> anyhow::Result<()> {
        self.body.clear();
        write!(self.body, "\"mem_coupon_id\":\"{asked}\"")?;
        let right =
            answer.is_success() && memmem::find(answer.body, &self.body).is_some() && !answer.is_replayed();
        ensure!(right, "coupon {asked} was not redeemed: {}", answer.text());
        Ok(())
    }
}

/// Someone who reads his pages.
pub struct Reader {
    /// His token.
    pub token: String,
    /// One of his coupons.
    pub coupon: u32,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// couponlist: the first ten of his rows.
    List,
    /// couponinfo: one coupon.
    Info,
    /// The one and the other in turn.
    Both,
}

/// Members read their pages, in a scattered order.
pub struct Reads {
    readers: Arc<Vec<Reader>>,
    page: Page,
    asked: usize,
    body: Vec<u8>,
}

impl Reads {
    /// Reads of one kind by these members.
    pub fn new(readers: Arc<Vec<Reader>>, page: Page) -> Self {
        Self { readers, page, asked: 0, body: Vec::new() }
    }
}

/// Marks what was asked for where a coupon's id would stand otherwise.
const LIST: u64 = 0;

impl Work for Reads {
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64> {
        self.asked += 1;
        let reader = self.readers.get(self.asked.wrapping_mul(7_919) % self.readers.len().max(1))?;
        let list = self.page == Page::List || (self.page == Page::Both && self.asked.is_multiple_of(2));
        if list {
            post(request, "/client/couponlist", &reader.token, None, b"state=0&limit=10");
            return Some(LIST);
        }
        self.body.clear();
        write!(self.body, "id={}", reader.coupon).ok()?;
        post(request, "/client/couponinfo", &reader.token, None, &self.body);
        Some(u64::from(reader.coupon))
    }

    fn check(&mut self, asked: u64, answer: &Answer<'_>) -> anyhow::Result<()> {
        let right = if asked == LIST {
            memmem::find_iter(answer.body, b"{\"id\":").count() == PAGE
        } else {
            self.body.clear();
            write!(self.body, "\"data\":{{\"id\":{asked},")?;
            memmem::find(answer.body, &self.body).is_some()
        };
        ensure!(answer.is_success() && right, "asked for {asked}: {}", answer.text());
        Ok(())
    }
}

/// What an operator reads of the statistics.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its path.
    pub path: &'static str,
    /// How many days are asked for.
    pub days: i64,
    /// What else is said there, beside the days and the page's limit.
    pub form: &'static str,
    /// A field of each row, and how many rows there are at least.
    pub told: (&'static str, usize),
}

/// An operator reads statistics, of so many days that begin here and there.
pub struct Figures {
    token: String,
    asked: Asked,
    of: i64,
    turn: u64,
    body: Vec<u8>,
}

impl Figures {
    /// Pages out of the last `of` days.
    pub fn new(token: String, asked: Asked, of: i64) -> Self {
        Self { token, asked, of, turn: 0, body: Vec::new() }
    }
}

impl Work for Figures {
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64> {
        self.turn += 1;
        let Asked { path, days, form, .. } = self.asked;
        let today = Zone::default().moment(Clock::System.now_ms()).day;
        let back = self.turn.wrapping_mul(7_919) % (self.of - days + 1).unsigned_abs();
        let end = today.checked_sub_days(Days::new(back))?;
        let start = end.checked_sub_days(Days::new(days.unsigned_abs() - 1))?;
        // Definitions and shops take turns, where one is named.
        let form = form.replace("{turn}", &(self.turn % 15 + 3).to_string());
        let form = form.replace("{page}", &(self.turn % 5 + 1).to_string());
        self.body.clear();
        if path.starts_with("/v1/") {
            let target = format!("{path}?start={start}&end={end}{form}");
            get(request, &target, &self.token);
        } else {
            write!(self.body, "start={start}&end={end}&limit=10{form}").ok()?;
            post(request, path, &self.token, None, &self.body);
        }
        Some(self.turn)
    }

    fn check(&mut self, turn: u64, answer: &Answer<'_>) -> anyhow::Result<()> {
        let (field, rows) = self.asked.told;
        let told = memmem::find_iter(answer.body, field.as_bytes()).count() >= rows;
        let is_success = answer.is_success() || answer.body.starts_with(b"{\"as_of\"");
        ensure!(is_success && told, "{} {turn}: {}", self.asked.path, answer.text());
        Ok(())
    }
}

/// Nine reads, then a redeem.
pub struct Mixed {
    /// The reads.
    pub reads: Reads,
    /// The commands.
    pub redeems: Redeems,
    /// How many requests so far.
    pub asked: u64,
}

/// Tells a command from a read among what was asked; ids stay far below it.
const COMMAND: u64 = 1 << 63;

impl Work for Mixed {
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64> {
        self.asked += 1;
        if self.asked.is_multiple_of(10) {
            return self.redeems.next(request).map(|coupon| coupon | COMMAND);
        }
        self.reads.next(request)
    }

    fn check(&mut self, asked: u64, answer: &Answer<'_>) -> anyhow::Result<()> {
        if asked & COMMAND != 0 {
            return self.redeems.check(asked & !COMMAND, answer);
        }
        self.reads.check(asked, answer)
    }
}

/// Members claim coupons of definitions that have half as many as are asked for.
pub struct Claims {
    tokens: Arc<Vec<String>>,
    definitions: Vec<i64>,
    asked: usize,
    body: Vec<u8>,
    /// How many were given one.
    pub granted: u64,
    /// How many were told 5001, sold out.
    pub sold_out: u64,
}

impl Claims {
    /// Each member claims once; the definitions take turns.
    pub fn new(tokens: Arc<Vec<String>>, definitions: Vec<i64>) -> Self {
        Self { tokens, definitions, asked: 0, body: Vec::new(), granted: 0, sold_out: 0 }
    }
}

impl Work for Claims {
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64> {
        let token = self.tokens.get(self.asked)?;
        let definition = self.definitions.get(self.asked % self.definitions.len().max(1))?;
        self.asked += 1;
        self.body.clear();
        write!(self.body, "id={definition}").ok()?;
        post(request, "/client/claimcoupon", token, Some(("claim", *definition as u64)), &self.body);
        Some(*definition as u64)
    }

    fn check(&mut self, asked: u64, answer: &Answer<'_>) -> anyhow::Result<()> {
        if answer.is_success() && !answer.is_replayed() {
            self.granted += 1;
        } else if answer.body.starts_with(b"{\"code\":5001,") {
            self.sold_out += 1;
        } else {
            anyhow::bail!("claim of definition {asked}: {}", answer.text());
        }
        Ok(())
    }
}
