//! Values that come in more than one shape: Perl makes no difference between `1`, `"1"` and `true`.

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A number that may come as a string. A fraction loses what is behind the point.
pub(crate) fn number<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(input)?;
    as_number(&value).ok_or_else(|| D::Error::invalid_value(Unexpected::Other(&value.to_string()), &"a number"))
}

/// [`number`], or nothing: absent, null, or an empty string.
pub(crate) fn maybe_number<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(input)? {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        value => as_number(&value)
            .map(Some)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Other(&value.to_string()), &"a number")),
    }
}

/// A truth value: `1`, `"1"`, `true` are true, all else is false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    Ok(truth(&Value::deserialize(input)?))
}

/// Whether a value means true.
pub(crate) fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => matches!(text.as_str(), "1" | "yes" | "on" | "true"),
        _ => false,
    }
}

/// [`flag`], where absence means something else than false.
pub(crate) fn maybe_flag<'de, D: Deserializer<'de>>(input: D) -> Result<Option<bool>, D::Error> {
    flag(input).map(Some)
}

fn as_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
        Value::Bool(value) => Some(u64::from(*value)),
        _ => None,
    }
}

/// `2^64` is the first that does not fit.
#[allow(clippy::cast_sign_loss)]
fn whole(number: f64) -> Option<u64> {
    (0.0..18_446_744_073_709_551_616.0)
        .contains(&number)
        .then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "number")]
        n: u64,
        #[serde(default, deserialize_with = "maybe_number")]
        m: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        f: bool,
    }

    fn read(text: &str) -> Option<(u64, Option<u64>, bool)> {
        let sample: Sample = serde_json::from_str(text).ok()?;
        Some((sample.n, sample.m, sample.f))
    }

    #[test]
    fn every_shape_of_a_number_is_read_and_nothing_else() {
        assert_eq!(read(r#"{"n": 7}"#), Some((7, None, false)));
        assert_eq!(read(r#"{"n": "7", "m": "9", "f": "1"}"#), Some((7, Some(9), true)));
        assert_eq!(read(r#"{"n": 7.9, "m": null, "f": 1}"#), Some((7, None, true)));
        assert_eq!(read(r#"{"n": "1e3", "m": "", "f": 0}"#), Some((1000, None, false)));
        assert_eq!(read(r#"{"n": 18446744073709551615}"#), Some((u64::MAX, None, false)));
        for text in [
            r#"{"n": -1}"#,
            r#"{"n": "x"}"#,
            r#"{"n": [1]}"#,
            r#"{"n": 1e30}"#,
            r#"{"n": "NaN"}"#,
            "{}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
