//! A small element tree: read with bounds, written with everything escaped.
//!
//! Architecture Invariant: no document type, no entity but the five of XML itself, no more than [`MAX_BYTES`], no deeper
//! than [`MAX_DEPTH`]. What a host sends cannot make us fetch, expand or recurse.

use std::fmt::Write as _;

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use thiserror::Error;

/// The longest document that is read: libvirt's own limit for a string in its protocol (`VIR_NET_MESSAGE_STRING_MAX`).
pub const MAX_BYTES: usize = 4 << 20;

/// The deepest nesting that is read. A domain with the longest backing chain that libvirt follows (200) stays below it.
const MAX_DEPTH: usize = 256;

/// Why a document cannot be read or written.
#[derive(Debug, Error)]
pub enum XmlError {
    /// It is longer than [`MAX_BYTES`].
    #[error("the document has {0} bytes, more than the {MAX_BYTES} that are read")]
    TooLong(usize),
    /// It is nested deeper than any that libvirt writes.
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// It has a document type definition.
    #[error("the document has a DOCTYPE, which libvirt never writes")]
    DocType,
    /// It refers to an entity that is not one of XML's five.
    #[error("the entity &{0}; is unknown")]
    Entity(String),
    /// An element or attribute has a name that is none. The reader below lets many things pass for a name.
    #[error("{0:?} is not a name")]
    Name(String),
    /// It is not well-formed.
    #[error("{0}")]
    Malformed(#[from] quick_xml::Error),
    /// It ends before its root element does, or has none.
    #[error("the document ends too early")]
    Incomplete,
    /// The value of this element or attribute holds a character that no XML document can. It may be a secret, and is not shown.
    #[error("{0} holds a control character, which XML cannot carry")]
    Illegal(String),
}

/// An element: its name as written (with prefix), attributes in order, children in order, and its own text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// An empty element. `name` comes from the program, never from data.
    pub fn new(name: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// With an attribute. `name` comes from the program, `value` may be any data.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    /// With text.
    #[must_use]
    pub fn text_of(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// With a child.
    #[must_use]
    pub fn child_of(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// With children.
    #[must_use]
    pub fn children_of(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    /// The name as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The attribute of that name.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The element's own text, without surrounding white space.
    pub fn text(&self) -> &str {
        self.text.trim()
    }

    /// All children.
    pub fn children(&self) -> &[Element] {
        &self.children
    }

    /// The children of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first element down this path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The text at the end of this path, where there is some.
    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).map(Element::text).filter(|text| !text.is_empty())
    }

    /// An attribute of the element at the end of this path.
    pub fn attr_at(&self, path: &[&str], name: &str) -> Option<&str> {
        self.at(path)?.attr(name)
    }

    /// Reads a document.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        if text.len() > MAX_BYTES {
            return Err(XmlError::TooLong(text.len()));
        }
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Element> = Vec::new();
        loop {
            let closed = match reader.read_event()? {
                Event::Start(tag) if open.len() >= MAX_DEPTH => {
                    drop(tag);
                    return Err(XmlError::TooDeep);
                }
                Event::Start(tag) => {
                    open.push(begin(&tag)?);
                    continue;
                }
                Event::Empty(tag) => begin(&tag)?,
                Event::End(_) => open.pop().ok_or(XmlError::Incomplete)?,
                Event::Eof => return Err(XmlError::Incomplete),
                Event::DocType(_) => return Err(XmlError::DocType),
                event => {
                    if let Some(element) = open.last_mut() {
                        element.add_text(&event)?;
                    }
                    continue;
                }
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(closed),
                None => return Ok(closed),
            }
        }
    }

    fn add_text(&mut self, event: &Event<'_>) -> Result<(), XmlError> {
        match event {
            Event::Text(text) => self.text.push_str(&text.xml10_content()),
            Event::CData(text) => self.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => self.text.push(resolve(reference)?),
            _ => {}
        }
        Ok(())
    }

    /// The document that this element is the root of.
    pub fn render(&self) -> Result<String, XmlError> {
        let mut out = String::new();
        self.write(&mut out, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, depth: usize) -> Result<(), XmlError> {
        let _ = write!(out, "{:1$}<{name}", "", depth * 2, name = self.name);
        for (name, value) in &self.attributes {
            let _ = write!(out, " {name}=\"{}\"", escape(name, value)?);
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>\n");
            return Ok(());
        }
        let _ = write!(out, ">{}", escape(&self.name, &self.text)?);
        if !self.children.is_empty() {
            out.push('\n');
            for child in &self.children {
                child.write(out, depth + 1)?;
            }
            let _ = write!(out, "{:1$}", "", depth * 2);
        }
        let _ = writeln!(out, "</{}>", self.name);
        Ok(())
    }
}

fn begin(tag: &BytesStart<'_>) -> Result<Element, XmlError> {
    let mut element = Element {
        name: checked(tag.name().as_ref())?,
        ..Element::default()
    };
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
        element
            .attributes
            .push((checked(attribute.key.as_ref())?, value.into_owned()));
    }
    Ok(element)
}

/// A name as XML 1.0 has it (production 5), of all but the rarest letters.
fn checked(name: &str) -> Result<String, XmlError> {
    let starts = |c: char| c.is_alphabetic() || matches!(c, '_' | ':');
    let follows = |c: char| starts(c) || c.is_numeric() || matches!(c, '-' | '.');
    let mut characters = name.chars();
    if characters.next().is_some_and(starts) && characters.all(follows) {
        return Ok(name.to_owned());
    }
    Err(XmlError::Name(name.to_owned()))
}

fn resolve(reference: &BytesRef<'_>) -> Result<char, XmlError> {
    if let Some(character) = reference.resolve_char_ref()? {
        return Ok(character);
    }
    match &**reference {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        other => Err(XmlError::Entity(other.to_owned())),
    }
}

/// Whether a character can stand in an XML document at all (XML 1.0, production 2).
pub fn is_legal(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Escapes for text and attribute values alike: white space other than the blank too, which a reader would normalise away. `name` is
/// of the element or the attribute.
fn escape(name: &str, value: &str) -> Result<String, XmlError> {
    let mut out = String::with_capacity(value.len());
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
            _ => return Err(XmlError::Illegal(name.to_owned())),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_libvirt_writes() {
        let root = Element::parse(
            "<?xml version='1.0'?><!-- note --><domain type='kvm' id='3'>\n  <name>a &lt;b&gt; &#x63;</name>\n  \
             <os firmware=\"efi\"><type>hvm</type></os><empty/></domain>",
        )
        .unwrap();
        assert_eq!(root.attr("type"), Some("kvm"));
        assert_eq!(root.text_at(&["name"]), Some("a <b> c"));
        assert_eq!(root.attr_at(&["os"], "firmware"), Some("efi"));
        assert_eq!(root.text_at(&["empty"]), None);
    }

    #[test]
    fn refuses_documents_with_tricks() {
        let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><d>&a;</d>";
        assert!(matches!(Element::parse(bomb), Err(XmlError::DocType)));
        assert!(matches!(Element::parse("<d>&a;</d>"), Err(XmlError::Entity(_))));
        assert!(Element::parse("<d a='&a;'/>").is_err());
        assert!(Element::parse("<d a='1' a='2'/>").is_err());
        assert!(matches!(Element::parse("<d><e>"), Err(XmlError::Incomplete)));
        assert!(matches!(Element::parse(""), Err(XmlError::Incomplete)));
        assert!(Element::parse("<d></e>").is_err());
        for nameless in ["<\t/>", "<1/>", "<a\"b/>", "<d =''/>", "<d 'a'=''/>"] {
            assert!(Element::parse(nameless).is_err(), "{nameless}");
        }
        assert!(matches!(Element::parse(&"<d>".repeat(10_000)), Err(XmlError::TooDeep)));
        assert!(matches!(
            Element::parse(&" ".repeat(MAX_BYTES + 1)),
            Err(XmlError::TooLong(_))
        ));
    }

    #[test]
    fn refuses_to_write_what_xml_cannot_carry() {
        let element = Element::new("name").text_of("bell\u{7}");
        assert!(matches!(element.render(), Err(XmlError::Illegal(_))));
        let secrets = [
            Element::new("graphics").with("passwd", "hunter2\0"),
            Element::new("passwd").text_of("hunter2\0"),
        ];
        for element in secrets {
            let said = Element::new("devices")
                .child_of(element)
                .render()
                .unwrap_err()
                .to_string();
            assert!(said.contains("passwd") && !said.contains("hunter2"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn data_stays_data(value in any::<String>(), text in "[^\\s]([^\u{0}]*[^\\s])?") {
            let written = Element::new("a").with("b", &value).child_of(Element::new("c").text_of(&text)).render();
            if value.chars().chain(text.chars()).all(is_legal) {
                let read = Element::parse(&written.unwrap()).unwrap();
                prop_assert_eq!(read.attr("b"), Some(value.as_str()));
                prop_assert_eq!(read.text_at(&["c"]), Some(text.trim()));
                prop_assert_eq!(read.children().len(), 1);
            } else {
                prop_assert!(written.is_err());
            }
        }

        #[test]
        fn what_is_read_can_be_written_and_read(text in "[<>/&;'\"=!a-c \t\\[\\]#x0-9?-]{0,80}") {
            if let Ok(element) = Element::parse(&text) && let Ok(written) = element.render() {
                let read = Element::parse(&written).unwrap();
                prop_assert_eq!(read.name(), element.name());
            }
        }
    }
}
