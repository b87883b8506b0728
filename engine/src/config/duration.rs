//! Durations as orra's clients and our settings write them: `45s`, `1m0s`, `1.5h`, `250ms`.
//!
//! Invariant: parsing what [`format()`] wrote gives the same duration.

use std::time::Duration;

const MICROSECOND: u128 = 1_000;
const MILLISECOND: u128 = 1_000 * MICROSECOND;
const SECOND: u128 = 1_000 * MILLISECOND;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
/// The longest: 2^63 - 1 nanoseconds, about 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// What a duration may look like, for error messages.
pub const ACCEPTS: &str = "a duration such as 45s, 1m30s or 250ms";

/// Reads a duration; `None` when it is none, or negative, or longer than 292 years.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut total = 0u128;
    let mut rest = text;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    (total <= LONGEST).then(|| nanos(total))
}

/// A duration from a number of nanoseconds; `None` when negative.
pub fn from_nanos(value: i64) -> Option<Duration> {
    u64::try_from(value).ok().map(Duration::from_nanos)
}

/// Writes a duration the way Go prints it: `1m0s`, `1.5s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        _ if nanos < MICROSECOND => format!("{nanos}ns"),
        _ if nanos < MILLISECOND => format!("{}µs", decimal(nanos, MICROSECOND)),
        _ if nanos < SECOND => format!("{}ms", decimal(nanos, MILLISECOND)),
        _ => {
            let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
            let seconds = decimal(nanos % MINUTE, SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn nanos(total: u128) -> Duration {
    Duration::new((total / SECOND) as u64, (total % SECOND) as u32)
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter look the same and are both in use.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// `number` (digits with at most one point, at least one digit) times `unit`, rounded down.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    // Beyond 15 places a fraction of an hour is less than a nanosecond.
    let fraction = &fraction[..fraction.len().min(15)];
    let part = digits(fraction)? * unit / 10u128.pow(fraction.len() as u32);
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let places = unit.ilog10() as usize;
    let rest = format!("{rest:0places$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_clients_write() {
        let check = |text: &str, nanos: u64| {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}")
        };
        check("45s", 45_000_000_000);
        check("1m0s", 60_000_000_000);
        check("1h2m3.5s", 3_723_500_000_000);
        check("1.5h", 5_400_000_000_000);
        check(".5s", 500_000_000);
        check("1.s", 1_000_000_000);
        check("250ms", 250_000_000);
        check("10us", 10_000);
        check("10\u{b5}s", 10_000);
        check("7ns", 7);
        check("0", 0);
        check("+3s", 3_000_000_000);
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "s",
            "5",
            "5x",
            "-5s",
            "1.2.3s",
            ".s",
            "5 s",
            "1d",
            "9999999999h",
            "soon",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_as_go_prints() {
        let check = |text: &str| assert_eq!(parse(text).map(format).as_deref(), Some(text));
        for text in [
            "0s", "45s", "1m0s", "1h0m0s", "1h2m3.5s", "1.5s", "250ms", "1.5ms", "10µs", "7ns",
            "30m0s",
        ] {
            check(text);
        }
    }
}
