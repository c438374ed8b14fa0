//! Property strings: `local-lvm:vm-100-disk-0,iothread=1,size=32G`.

/// The parts of a property string. The first may stand without a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties<'a> {
    first: Option<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Properties<'a> {
    /// Reads a property string. What makes no sense in it is left out: Proxmox VE has checked it already.
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut properties = Self::default();
        for (index, part) in text.split(',').enumerate() {
            match part.trim().split_once('=') {
                Some((name, value)) => properties.named.push((name.trim(), value.trim())),
                None if index == 0 && !part.trim().is_empty() => properties.first = Some(part.trim()),
                None => {}
            }
        }
        properties
    }

    /// The value that stands first without a name, or has this one.
    pub(crate) fn first_or(&self, name: &str) -> Option<&'a str> {
        self.first.or_else(|| self.get(name))
    }

    /// The value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// Whether a value is one of those that Proxmox VE takes for true.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_on)
    }

    /// All that have a name, in order.
    pub(crate) fn named(&self) -> &[(&'a str, &'a str)] {
        &self.named
    }
}

/// `1`, `yes`, `on`, `true`.
pub(crate) fn is_on(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "yes" | "on" | "true")
}

/// A size in bytes: `32G`, `528K`, `1.5T`, or bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1_u64 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        (at, 'G') => (&text[..at], 1 << 30),
        (at, 'T') => (&text[..at], 1 << 40),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // More than twelve digits would not show in a byte.
    let digits = &fraction[..fraction.len().min(12)];
    let tenth = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part = u128::from(unit) * digits.parse::<u128>().ok()? / tenth;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Undoes percent-encoding, which Proxmox VE uses for serial numbers and the like. What is not encoded right stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .filter(|pair| bytes[at] == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// Percent-encodes what would end a value: all but letters, digits and `-_.~`.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let hex = [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            encoded.push('%');
            encoded.extend(hex.map(|digit| digit.to_ascii_uppercase()));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_may_have_no_name() {
        let properties = Properties::parse("local-lvm:vm-100-disk-0,iothread=1, size=32G,serial=a=b,junk");
        assert_eq!(properties.first_or("file"), Some("local-lvm:vm-100-disk-0"));
        assert_eq!(properties.get("size"), Some("32G"));
        assert_eq!(properties.get("serial"), Some("a=b"));
        assert!(properties.is_on("iothread") && !properties.is_on("ssd"));
        assert_eq!(Properties::parse("enabled=1").first_or("enabled"), Some("1"));
        assert_eq!(Properties::parse("").first_or("x"), None);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4194304", 4 << 20),
            ("528K", 528 << 10),
            ("32G", 32 << 30),
            ("1.5G", 3 << 29),
            ("0.25T", 1 << 38),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.", ".5", "1g", "1.2.3G", "99999999999999T", "1 G", "ü"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains([',', '=', ' ', ';']));
            prop_assert_eq!(decode(&encoded), text);
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let _ = (size(&text), decode(&text));
            let properties = Properties::parse(&text);
            prop_assert!(properties.named().len() <= text.matches(',').count() + 1);
        }

        #[test]
        fn a_value_is_found_by_its_name(
            name in "[a-z][a-z-]{0,8}", value in "[A-Za-z0-9:._/-]{1,20}", other in "[A-Z]{1,5}"
        ) {
            let text = format!("x:y,{other}=1,{name}={value}");
            prop_assert_eq!(Properties::parse(&text).get(&name), Some(value.as_str()));
        }
    }
}
