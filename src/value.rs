//! Small values that cross every layer.

use crate::refusal::Wrong;

/// The largest id: what a JSON number holds exactly in every client.
pub const MAX_ID: i64 = (1 << 53) - 1;

/// Cents as the manual prints money: `10.00`, and `-0.05` where more was returned than sold.
#[must_use]
pub fn money_text(cents: i64) -> String {
    decimal_text(cents, 2)
}

/// A number with so many decimals, given as a whole number of the last of them.
#[must_use]
pub fn decimal_text(number: i64, decimals: u32) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let (number, one) = (number.unsigned_abs(), 10_u64.pow(decimals));
    format!("{sign}{}.{:0width$}", number / one, number % one, width = decimals as usize)
}

/// A decimal integer and nothing else. One too large for us is out of range, not "not a number"; whether any other lies
/// within the range is for the caller to say.
pub fn parse_int(text: &str, min: i64, max: i64) -> Result<i64, Wrong> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotANumber);
    }
    text.parse().map_err(|_| Wrong::OutOfRange { min, max })
}

/// Money as a request gives it, in cents: `10`, `10.5`, `10.50`; at most two decimals, never negative.
#[must_use]
pub fn parse_money(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 2 || whole.len() > 12 {
        return None;
    }
    let tenths = if fraction.len() == 1 { 10 } else { 1 };
    Some(whole.parse::<i64>().ok()? * 100 + fraction.parse::<i64>().ok()? * tenths)
}

/// Numbers as the manual lists them: `1,2,3`.
pub fn list_text<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Random bytes from the operating system; the one place that reads a random source.
///
/// # Panics
/// Where the operating system has none: no id, salt or key may be made then, and there is nothing sensible to go on with.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads a random source")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "an operating system without randomness cannot run a ledger")]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_at_most_two_decimals() {
        assert_eq!(parse_money("10"), Some(1000));
        assert_eq!(parse_money("10.5"), Some(1050));
        assert_eq!(parse_money("0.05"), Some(5));
        for bad in ["", ".", "1.", ".5", "-1", "1.005", "1e3", "９", "1234567890123"] {
            assert_eq!(parse_money(bad), None, "{bad}");
        }
        assert_eq!((money_text(1000), money_text(5)), ("10.00".to_owned(), "0.05".to_owned()));
        assert_eq!((money_text(-3455), money_text(-5)), ("-34.55".to_owned(), "-0.05".to_owned()));
    }
}
