//! Rates of bytes, as people write them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use thiserror::Error;

/// The lowest rate that is taken: less is no rate for a disk but a unit that was forgotten.
const LEAST: u64 = 64 << 10;

/// Bytes per second: `52428800`, `50MiB`, `1.5GB`, `50Mi/s`. Units are K, M, G and T (powers of 1000) and Ki, Mi, Gi and Ti (of
/// 1024), with or without `B` and `/s`. It prints with the largest unit of 1024 that divides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub NonZeroU64);

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a rate: write bytes per second, 64KiB or more, like 52428800, 50MiB or 1.5GB")]
pub struct ParseRateError(pub String);

impl FromStr for ByteRate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        bytes(text.trim())
            .filter(|bytes| *bytes >= LEAST)
            .and_then(NonZeroU64::new)
            .map(Self)
            .ok_or_else(|| ParseRateError(text.to_owned()))
    }
}

/// What a text means in bytes, rounded down.
fn bytes(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s").unwrap_or(text).trim_end();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let unit = unit.trim_start();
    let factor: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / scale;
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get();
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let unit = units.into_iter().find(|(_, bits)| bytes.trailing_zeros() >= *bits);
        match unit {
            Some((name, bits)) => write!(f, "{}{name}/s", bytes >> bits),
            None => write!(f, "{bytes}B/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for (text, bytes, printed) in [
            ("52428800", 52_428_800, "50MiB/s"),
            ("50MiB", 50 << 20, "50MiB/s"),
            (" 50 Mi/s ", 50 << 20, "50MiB/s"),
            ("64KiB", 64 << 10, "64KiB/s"),
            ("1.5GB", 1_500_000_000, "1500000000B/s"),
            ("100k", 100_000, "100000B/s"),
            ("0.25Gi", 1 << 28, "256MiB/s"),
            ("2TB/s", 2_000_000_000_000, "1953125000KiB/s"),
            ("16777215TiB", 16_777_215 << 40, "16777215TiB/s"),
        ] {
            let rate: ByteRate = text.parse().unwrap();
            assert_eq!((rate.0.get(), rate.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "0",
            "10",
            "65535",
            "-5MiB",
            "50 Mbit",
            "50Mb",
            "50mb",
            "MiB",
            ".5MiB",
            "1.MiB",
            "1.2.3MiB",
            "1e9",
            "50MiB/m",
            "16777216TiB",
            "99999999999999999999",
            "５０MiB",
            "1.0000000000MiB",
            "50B/s/s",
        ] {
            let error = text.parse::<ByteRate>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a rate")), "{error}");
        }
    }
}
