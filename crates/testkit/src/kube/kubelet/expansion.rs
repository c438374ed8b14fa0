//! References to variables in arguments and values, as Kubernetes has them: `$(NAME)`, and `$$` for a dollar.

/// Puts the values of variables in place of their names. What names nothing stays as it is.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            expanded.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let value = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expanded) in [
            ("a$(A)b", "a1b"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            (r#"{"p":"$$x"}"#, r#"{"p":"$x"}"#),
        ] {
            assert_eq!(expand(text, value), expanded, "{text}");
        }
    }
}
