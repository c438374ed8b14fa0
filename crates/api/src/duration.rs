//! Durations as Go writes them.
//!
//! Users know them from Kubernetes: `5m`, `1h30m`, `1.5h`, `100ms`, `0`. The grammar is that of Go's
//! [`time.ParseDuration`](https://pkg.go.dev/time#ParseDuration) without the minus sign, and so is the range: what is more
//! than 2⁶³−1 nanoseconds (about 292 years) is refused there and here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The form of a duration, for schemas. What it lets through is a duration, unless it is too long.
pub const PATTERN: &str = r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// The longest text of a duration that a schema lets through, in characters.
const MAX_LENGTH: u32 = 64;

/// Nanoseconds of each unit. Two characters come first, so that `ms` is not taken for `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration in Go's form: `5m`, `1h30m`, `0s`, `1.5h`. It prints in the shortest form that means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GoDuration(pub Duration);

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a duration: write it like 5m, 1h30m, 1.5h or 0s (units ns, us, ms, s, m, h; at most 2562047h)")]
pub struct ParseDurationError(pub String);

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        nanoseconds(text.strip_prefix('+').unwrap_or(text))
            .filter(|nanos| i64::try_from(*nanos).is_ok())
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .ok_or_else(|| ParseDurationError(text.to_owned()))
    }
}

/// The sum of all terms, in nanoseconds; `None` where the text is malformed or the sum too large.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let (term, after) = term(rest)?;
        sum = sum.checked_add(term)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// The first term (`1.5h`) in nanoseconds, and what follows it.
fn term(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, rest) = UNITS
        .iter()
        .find_map(|(name, nanos)| rest.strip_prefix(name).map(|rest| (*nanos, rest)))?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos = whole.checked_mul(unit)?.checked_add(fraction_of(fraction, unit))?;
    Some((nanos, rest))
}

/// Splits the leading digits off.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.fraction` of `unit`, rounded down. Digits past the eighteenth are worth less than a nanosecond of any unit.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    let (value, scale) = fraction
        .bytes()
        .take(18)
        .fold((0_u128, 1_u128), |(value, scale), digit| {
            (value * 10 + u128::from(digit - b'0'), scale * 10)
        });
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(unit)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.0.as_nanos();
        for (unit, nanos) in [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
        ] {
            if rest >= nanos {
                write!(f, "{}{unit}", rest / nanos)?;
                rest %= nanos;
            }
        }
        for (unit, nanos) in [("us", 1_000), ("ns", 1)] {
            if rest >= nanos {
                write!(f, "{}{unit}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        duration.to_string()
    }
}

impl TryFrom<String> for GoDuration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, ParseDurationError> {
        text.parse()
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GoDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Duration> {
        text.parse::<GoDuration>().ok().map(|duration| duration.0)
    }

    #[test]
    fn what_go_takes_is_taken() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100ms", 100_000_000),
            ("5µs", 5_000),
            ("5μs", 5_000),
            ("5us", 5_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+5s", 5_000_000_000),
            ("30m1h", 5_400_000_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX.unsigned_abs()),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "5",
            "m",
            ".s",
            "5M",
            "5 m",
            " 5m",
            "5m ",
            "-5m",
            "1d",
            "5mm",
            "++5m",
            "+",
            "1e3s",
            "1.2.3s",
            "5µ",
            "9223372036854775808ns",
            "2562048h",
            "99999999999999999999h",
            "５m",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_shortest_form_is_printed() {
        for (text, printed) in [
            ("5m", "5m"),
            ("5m0s", "5m"),
            ("90m", "1h30m"),
            ("0", "0s"),
            ("1.5s", "1s500ms"),
            ("1h0m1s", "1h1s"),
            ("1001ns", "1us1ns"),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn an_error_names_the_value_and_the_form() {
        let error = "5 minutes".parse::<GoDuration>().unwrap_err().to_string();
        assert!(error.contains("\"5 minutes\"") && error.contains("1h30m"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not_but_never_panics(text in "\\PC*") {
            let _ = text.parse::<GoDuration>();
        }

        #[test]
        fn text_of_the_form_is_a_duration_when_short(text in r"\+?(([0-9]{1,4}(\.[0-9]{0,25})?|\.[0-9]{1,25})(ns|us|µs|μs|ms|s|m|h)){1,6}") {
            prop_assert!(text.parse::<GoDuration>().is_ok());
        }

        #[test]
        fn what_is_printed_is_read_back(nanos in 0..=i64::MAX.unsigned_abs()) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
        }
    }
}
