//! A small element tree, read with bounds.
//!
//! Namespaces are not resolved: vCenter, ESXi and their versions differ in prefixes and in where they declare them, and no two
//! names that matter differ only by their namespace. An element is known by its local name; of attributes, `type` with a prefix is
//! the XML Schema's and `type` without one is VMware's own (a managed object's type).
//!
//! Architecture Invariant: no document type, no entity but the five of XML itself, no more than [`MAX_BYTES`] and
//! [`MAX_ELEMENTS`], no deeper than [`MAX_DEPTH`]. What a host sends cannot make us fetch, expand or recurse.

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use thiserror::Error;

use super::Moref;

/// The longest answer that is read: a page of the properties of a hundred VMs is below it.
pub(crate) const MAX_BYTES: usize = 16 << 20;
/// The most elements of an answer.
const MAX_ELEMENTS: usize = 400_000;
/// The deepest nesting that is read. VMware allows 32 snapshots in a chain, each of which nests once.
const MAX_DEPTH: usize = 200;

/// Why an answer cannot be read.
#[derive(Debug, Error)]
pub(crate) enum XmlError {
    /// It is longer than [`MAX_BYTES`] or has more than [`MAX_ELEMENTS`].
    #[error("the answer is too large")]
    TooLarge,
    /// It is nested deeper than any that VMware sends.
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// It has a document type definition.
    #[error("the answer has a DOCTYPE, which SOAP forbids")]
    DocType,
    /// It refers to an entity that is not one of XML's five.
    #[error("the entity &{0}; is unknown")]
    Entity(String),
    /// It is not well-formed.
    #[error("{0}")]
    Malformed(#[from] quick_xml::Error),
    /// It ends before its root element does, or has none.
    #[error("the answer ends too early")]
    Incomplete,
}

/// An element: its local name, its two kinds of type, its children in order, and its own text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Element {
    name: String,
    /// `xsi:type` without its prefix.
    schema: Option<String>,
    /// Plain `type`.
    object: Option<String>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// Reads an answer.
    pub(crate) fn parse(text: &str) -> Result<Self, XmlError> {
        if text.len() > MAX_BYTES {
            return Err(XmlError::TooLarge);
        }
        let mut reader = Reader::from_str(text.trim_start_matches('\u{FEFF}'));
        let mut open: Vec<Self> = Vec::new();
        let mut count = 0;
        loop {
            let closed = match reader.read_event()? {
                Event::Start(tag) => {
                    open.push(begin(&tag)?);
                    count += 1;
                    if open.len() > MAX_DEPTH {
                        return Err(XmlError::TooDeep);
                    }
                    if count > MAX_ELEMENTS {
                        return Err(XmlError::TooLarge);
                    }
                    continue;
                }
                Event::Empty(tag) => {
                    count += 1;
                    begin(&tag)?
                }
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
            if count > MAX_ELEMENTS {
                return Err(XmlError::TooLarge);
            }
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

    /// The local name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name of its data type (`VirtualDisk`), where it says one.
    pub(crate) fn schema_type(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Its own text, without surrounding white space.
    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }

    /// All children.
    pub(crate) fn children(&self) -> &[Self] {
        &self.children
    }

    /// The children of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first element down this path of names, with slashes between them.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.child(name))
    }

    /// The text at the end of a path, where there is some.
    pub(crate) fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(Self::text).filter(|text| !text.is_empty())
    }

    /// The whole number at the end of a path.
    pub(crate) fn number_at(&self, path: &str) -> Option<i64> {
        self.text_at(path)?.parse().ok()
    }

    /// The truth value at the end of a path: `true`, `false`, `1` or `0`.
    pub(crate) fn flag_at(&self, path: &str) -> Option<bool> {
        self.text_at(path).and_then(as_flag)
    }

    /// The truth value that it is.
    pub(crate) fn flag(&self) -> Option<bool> {
        as_flag(self.text())
    }

    /// The managed object that it refers to.
    pub(crate) fn moref(&self) -> Option<Moref> {
        let value = self.text();
        let kind = self.object.as_deref()?;
        (!value.is_empty()).then(|| Moref::new(kind, value))
    }

    /// The managed object at the end of a path.
    pub(crate) fn moref_at(&self, path: &str) -> Option<Moref> {
        self.at(path)?.moref()
    }
}

fn as_flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn begin(tag: &BytesStart<'_>) -> Result<Element, XmlError> {
    let mut element = Element {
        name: tag.local_name().as_ref().to_owned(),
        ..Element::default()
    };
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        if attribute.key.local_name().as_ref() != "type" {
            continue;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
        let value = value.trim();
        if attribute.key.prefix().is_some() {
            let name = value.rsplit_once(':').map_or(value, |(_, name)| name);
            element.schema = Some(name.to_owned());
        } else {
            element.object = Some(value.to_owned());
        }
    }
    Ok(element)
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
