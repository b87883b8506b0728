//! Cron schedules: when the next run of a chain begins. Evaluated on times that come in, with time zones compiled in.
//!
//! ```text
//!  [CRON_TZ=Europe/Berlin ] minute hour day-of-month month day-of-week  |  @hourly, @daily, ...  |  @every 90m
//! ```
//!
//! Invariant: a schedule that parses has a next time behind every instant, or says that it has none.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp as Instant;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::ids::Timestamp;

/// A parsed schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    when: When,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
enum When {
    Pattern(Box<Cron>),
    /// Nanoseconds.
    Every(i64),
}

impl Schedule {
    /// Reads a schedule; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &dyn std::fmt::Display| format!("cron schedule {text:?}: {why}");
        let (zone, pattern) = match text.strip_prefix("CRON_TZ=").or(text.strip_prefix("TZ=")) {
            Some(rest) => {
                let (name, pattern) = rest
                    .split_once(char::is_whitespace)
                    .ok_or_else(|| bad(&"a time zone is named, and nothing follows it"))?;
                let zone = TimeZoneDatabase::bundled()
                    .get(name)
                    .map_err(|_| bad(&format!("time zone {name:?} is not known")))?;
                (zone, pattern.trim())
            }
            None => (TimeZone::UTC, text.trim()),
        };
        let when = match pattern.strip_prefix("@every") {
            Some(every) => When::Every(period(every.trim()).map_err(|why| bad(&why))?),
            None => {
                let parser = CronParser::builder()
                    .seconds(Seconds::Disallowed)
                    .year(Year::Disallowed)
                    .build();
                When::Pattern(Box::new(parser.parse(pattern).map_err(|why| bad(&why))?))
            }
        };
        Ok(Self { when, zone })
    }

    /// The first time behind `closed` (never at it), for a run whose first workflow task was due at `began`; `None` if there is none.
    pub fn next(&self, began: Timestamp, closed: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Every(period) => {
                let periods = closed.0.saturating_sub(began.0).max(0) / period + 1;
                Some(Timestamp(
                    began.0.saturating_add(periods.checked_mul(*period)?),
                ))
            }
            When::Pattern(cron) => {
                let closed = Instant::from_nanosecond(i128::from(closed.0)).ok()?;
                let next = cron
                    .find_next_occurrence(&closed.to_zoned(self.zone.clone()), false)
                    .ok()?;
                i64::try_from(next.timestamp().as_nanosecond())
                    .ok()
                    .map(Timestamp)
            }
        }
    }
}

/// A length of time as Go writes it: `1h30m`, `90s`. At least a second, as the reference has it.
fn period(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e6), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, unit) = rest.split_at(end);
        let number: f64 = number
            .parse()
            .map_err(|_| format!("{text:?} is no length of time: write it like 1h30m"))?;
        let (name, factor) = UNITS
            .iter()
            .find(|(name, _)| unit.starts_with(name))
            .ok_or_else(|| format!("{text:?} has a number without h, m, s or ms behind it"))?;
        nanos += number * factor;
        rest = &unit[name.len()..];
    }
    if !(1e9..9e18).contains(&nanos) {
        return Err(format!(
            "{text:?} is too short or too long: one second is the least"
        ));
    }
    Ok(nanos as i64 / 1_000_000_000 * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let instant: Instant = text.parse().unwrap();
        Timestamp(i64::try_from(instant.as_nanosecond()).unwrap())
    }

    fn next(schedule: &str, closed: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        let next = schedule
            .next(at("2026-03-01T00:00:10Z"), at(closed))
            .unwrap();
        Instant::from_nanosecond(i128::from(next.0))
            .unwrap()
            .to_string()
    }

    #[test]
    fn the_next_time_is_behind_the_close_and_never_at_it() {
        assert_eq!(
            next("*/5 * * * *", "2026-03-01T12:00:00Z"),
            "2026-03-01T12:05:00Z"
        );
        assert_eq!(
            next("*/5 * * * *", "2026-03-01T12:04:59.5Z"),
            "2026-03-01T12:05:00Z"
        );
        assert_eq!(
            next("0 9 * * MON", "2026-03-01T12:00:00Z"),
            "2026-03-02T09:00:00Z"
        );
        assert_eq!(
            next("@daily", "2026-03-01T12:00:00Z"),
            "2026-03-02T00:00:00Z"
        );
    }

    #[test]
    fn a_period_counts_from_the_beginning_of_the_run_and_never_overlaps() {
        assert_eq!(
            next("@every 30s", "2026-03-01T00:00:15Z"),
            "2026-03-01T00:00:40Z"
        );
        assert_eq!(
            next("@every 30s", "2026-03-01T00:00:40Z"),
            "2026-03-01T00:01:10Z"
        );
        assert_eq!(
            next("@every 1h30m", "2026-03-01T00:00:10Z"),
            "2026-03-01T01:30:10Z"
        );
    }

    #[test]
    fn a_zone_moves_with_its_clocks() {
        let nine = "CRON_TZ=Europe/Berlin 0 9 * * *";
        assert_eq!(next(nine, "2026-03-28T12:00:00Z"), "2026-03-29T07:00:00Z");
        assert_eq!(next(nine, "2026-03-27T12:00:00Z"), "2026-03-28T08:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "* * * *",
            "61 * * * *",
            "0 0 * * * * *",
            "@every",
            "@every 0s",
            "@every 3",
            "CRON_TZ=Mars/Base 0 0 * * *",
            "TZ=UTC",
            "hello",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_time_that_never_comes_is_none() {
        let schedule = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(
            schedule.next(Timestamp(0), at("2026-03-01T00:00:00Z")),
            None
        );
    }
}
