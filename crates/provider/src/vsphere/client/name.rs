//! Names as vSphere keeps them: slash, backslash and percent sign are escaped in an entity's name.

/// The name as people write it.
pub(crate) fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).map(str::to_ascii_lowercase);
        let character = match code.as_deref() {
            Some("2f") => '/',
            Some("5c") => '\\',
            Some("25") => '%',
            _ => {
                out.push('%');
                rest = after;
                continue;
            }
        };
        out.push(character);
        rest = after.get(2..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The name as vSphere keeps it.
pub(crate) fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_three_characters_are_escaped() {
        assert_eq!(unescape("a%2Fb%5cc%25d%20e%"), "a/b\\c%d%20e%");
        assert_eq!(escape("a/b\\c%d e"), "a%2fb%5cc%25d e");
        assert_eq!(unescape("%2ü"), "%2ü");
    }

    proptest! {
        #[test]
        fn a_name_comes_back(name in "[a-c/\\\\%25üf]{0,20}") {
            prop_assert_eq!(unescape(&escape(&name)), name);
        }
    }
}
