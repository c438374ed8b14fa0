//! How VMware says no: a SOAP fault as the answer of a call, or a `LocalizedMethodFault` as the end of a task or a lease.

use super::element::XmlError;
use super::{Element, Moref};

/// A typed fault with the server's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct VimFault {
    /// Its type, as in `NoPermission`; empty where the server names none.
    pub(crate) name: String,
    /// What the server says, in its language: the message, and what it says led to it.
    pub(crate) message: String,
    /// The object that it is about, where it names one.
    pub(crate) object: Option<Moref>,
    /// The privileges that are missing on that object.
    pub(crate) privileges: Vec<String>,
}

impl VimFault {
    /// Whether it is of this type.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The fault of a `soap:Fault`.
    fn of_answer(fault: &Element) -> Self {
        let detail = fault.child("detail").and_then(|detail| detail.children().first());
        let mut read = detail.map(Self::of_data).unwrap_or_default();
        let said = fault.text_at("faultstring").unwrap_or_default();
        read.message = joined(said, &read.message);
        if read.message.is_empty() {
            fault
                .text_at("faultcode")
                .unwrap_or("no reason was given")
                .clone_into(&mut read.message);
        }
        read
    }

    /// The fault of a `LocalizedMethodFault`: what tasks and leases end with.
    pub(crate) fn of_localized(fault: &Element) -> Self {
        let mut read = fault.child("fault").map(Self::of_data).unwrap_or_default();
        let said = fault.text_at("localizedMessage").unwrap_or_default();
        read.message = joined(said, &read.message);
        if read.message.is_empty() {
            read.message.clone_from(&read.name);
        }
        read
    }

    /// The fault as a data object, which says its type by `xsi:type`, or by its element's name.
    fn of_data(data: &Element) -> Self {
        let name = data.schema_type().map_or_else(
            || data.name().strip_suffix("Fault").unwrap_or(data.name()).to_owned(),
            str::to_owned,
        );
        // NoPermission names one object and one privilege, or since 7.0.3 several of each.
        let mut privileges: Vec<String> = data.all("privilegeId").map(|id| id.text().to_owned()).collect();
        for missing in data.all("missingPrivileges") {
            privileges.extend(missing.all("privilegeIds").map(|id| id.text().to_owned()));
        }
        privileges.sort();
        privileges.dedup();
        let object = ["object", "obj", "missingPrivileges/entity"]
            .into_iter()
            .find_map(|path| data.moref_at(path));
        let own = data
            .all("faultMessage")
            .filter_map(|message| message.text_at("message"));
        let cause = data.text_at("faultCause/localizedMessage");
        let reason = data.text_at("reason");
        let message = own
            .chain(cause)
            .chain(reason)
            .fold(String::new(), |all, next| joined(&all, next));
        Self {
            name,
            message,
            object,
            privileges,
        }
    }
}

/// One text after the other, neither of them twice.
fn joined(first: &str, second: &str) -> String {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first.to_owned(),
        (true, false) => second.to_owned(),
        _ if first.contains(second) => first.to_owned(),
        _ => format!("{} ({second})", first.trim_end_matches('.')),
    }
}

/// What is in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// The response element of the method.
    Response(Element),
    /// The server's refusal.
    Fault(VimFault),
    /// No SOAP at all: the root element's name.
    Other(String),
}

/// Reads an answer.
pub(crate) fn body(text: &str) -> Result<Body, XmlError> {
    let root = Element::parse(text)?;
    let Some(body) = root.child("Body").filter(|_| root.name() == "Envelope") else {
        return Ok(Body::Other(root.name().to_owned()));
    };
    Ok(match body.children().first() {
        Some(fault) if fault.name() == "Fault" => Body::Fault(VimFault::of_answer(fault)),
        Some(response) => Body::Response(response.clone()),
        None => Body::Response(Element::default()),
    })
}
