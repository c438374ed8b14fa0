//! What is sent.

use std::fmt::Write as _;

use thiserror::Error;

use super::Moref;

/// The argument or the attribute whose value no XML document can carry. Its value may be a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} holds a control character, which SOAP cannot carry")]
pub(crate) struct Illegal(pub(crate) &'static str);

/// One argument of a call, or one property of a data object. VMware wants them in the order of its documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arg {
    name: &'static str,
    attribute: Option<(&'static str, String)>,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Text(String),
    Children(Vec<Arg>),
}

impl Arg {
    /// A plain value. `name` comes from the program, `value` may be any data.
    #[expect(clippy::needless_pass_by_value, reason = "numbers, flags and texts alike")]
    pub(crate) fn text(name: &'static str, value: impl ToString) -> Self {
        Self {
            name,
            attribute: None,
            content: Content::Text(value.to_string()),
        }
    }

    /// A reference to a managed object.
    pub(crate) fn moref(name: &'static str, object: &Moref) -> Self {
        Self {
            name,
            attribute: Some(("type", object.kind.clone())),
            content: Content::Text(object.value.clone()),
        }
    }

    /// A data object of the type that its place declares.
    pub(crate) fn object(name: &'static str, properties: impl IntoIterator<Item = Self>) -> Self {
        Self {
            name,
            attribute: None,
            content: Content::Children(properties.into_iter().collect()),
        }
    }

    /// A data object of another type than its place declares: one that extends it.
    pub(crate) fn typed(
        name: &'static str,
        schema_type: &'static str,
        properties: impl IntoIterator<Item = Self>,
    ) -> Self {
        let mut object = Self::object(name, properties);
        object.attribute = Some(("xsi:type", schema_type.to_owned()));
        object
    }

    /// A plain value where the declared type is `xsd:anyType`; `schema_type` is as in `xsd:string`.
    pub(crate) fn any(name: &'static str, schema_type: &'static str, value: impl ToString) -> Self {
        let mut text = Self::text(name, value);
        text.attribute = Some(("xsi:type", schema_type.to_owned()));
        text
    }

    /// With one more property at its end.
    #[must_use]
    pub(crate) fn with(mut self, property: Self) -> Self {
        match &mut self.content {
            Content::Children(children) => children.push(property),
            Content::Text(_) => self.content = Content::Children(vec![property]),
        }
        self
    }

    fn write(&self, out: &mut String) -> Result<(), Illegal> {
        out.push('<');
        out.push_str(self.name);
        if let Some((name, value)) = &self.attribute {
            let _ = write!(out, " {name}=\"");
            escape(value, out).ok_or(Illegal(name))?;
            out.push('"');
        }
        out.push('>');
        match &self.content {
            Content::Text(text) => escape(text, out).ok_or(Illegal(self.name))?,
            Content::Children(children) => children.iter().try_for_each(|child| child.write(out))?,
        }
        let _ = write!(out, "</{}>", self.name);
        Ok(())
    }
}

/// The whole request: `method` of `this` with these arguments.
pub(crate) fn envelope(this: &Moref, method: &'static str, args: &[Arg]) -> Result<String, Illegal> {
    let mut out = String::with_capacity(1024);
    out.push_str(concat!(
        r#"<?xml version="1.0" encoding="UTF-8"?>"#,
        r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/""#,
        r#" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">"#,
        "<soapenv:Body>"
    ));
    let _ = write!(out, "<{method} xmlns=\"urn:vim25\">");
    Arg::moref("_this", this).write(&mut out)?;
    args.iter().try_for_each(|arg| arg.write(&mut out))?;
    let _ = write!(out, "</{method}></soapenv:Body></soapenv:Envelope>");
    Ok(out)
}

/// Whether a character can stand in an XML document at all (XML 1.0, production 2).
pub(crate) fn is_legal(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Escapes for text and attribute values alike: white space other than the blank too, which a reader would normalise away. `None`
/// where a character can stand in no document.
fn escape(value: &str, out: &mut String) -> Option<()> {
    for character in value.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(character));
            }
            _ if is_legal(character) => out.push(character),
            _ => return None,
        }
    }
    Some(())
}
