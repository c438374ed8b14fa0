//! One of several, by name or path.

use super::super::file::inventory_path;
use crate::vsphere::client::{Client, Object, unescape};
use crate::{Error, Kind};

/// How many are named in a message.
pub(super) const NAMED: usize = 10;

/// What is looked for.
pub(super) struct Choice<'a> {
    what: &'static str,
    key: &'static str,
    wanted: Option<&'a str>,
}

impl<'a> Choice<'a> {
    /// A thing of that sort, which `key` of the Provider's `spec.defaults` names.
    pub fn new(what: &'static str, key: &'static str, wanted: Option<&'a str>) -> Self {
        Self { what, key, wanted }
    }

    /// The one that is named, by its name or its inventory path; the only one where none is.
    pub async fn one_of(&self, client: &Client, all: Vec<Object>) -> Result<Object, Error> {
        let Some(wanted) = self.wanted else {
            return self.only(all);
        };
        let mut found: Vec<_> = all.iter().filter(|one| is_named(one, wanted)).cloned().collect();
        if found.is_empty() && wanted.contains('/') {
            let at = client.find_by_path(wanted).await;
            let at = at.map_err(|trouble| trouble.of("find", self.object()))?;
            found = all
                .iter()
                .filter(|one| Some(&one.moref) == at.as_ref())
                .cloned()
                .collect();
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Error::new(Kind::NotFound, "find", self.object())
                .detail(format!("{} has {}", client.describe(), self.list(&all)))
                .remedy(format!("correct {} in the Provider's spec.defaults", self.key))),
            _ => Err(Error::new(Kind::Invalid, "find", self.object())
                .detail(several_of(client, &found.iter().collect::<Vec<_>>()).await)
                .remedy(format!(
                    "give the inventory path as {} in the Provider's spec.defaults",
                    self.key
                ))),
        }
    }

    fn only(&self, mut all: Vec<Object>) -> Result<Object, Error> {
        match all.len() {
            1 => Ok(all.remove(0)),
            0 => Err(Error::new(Kind::NotFound, "find", format!("a {}", self.what))
                .detail("there is none, or the user may not see it")
                .remedy("check what the user's role reaches (docs/providers/vsphere.md)")),
            _ => Err(Error::new(Kind::Invalid, "choose", format!("a {}", self.what))
                .detail(format!("there are several: {}", self.list(&all)))
                .remedy(format!("name one as {} in the Provider's spec.defaults", self.key))),
        }
    }

    fn object(&self) -> String {
        format!("{} {:?}", self.what, self.wanted.unwrap_or_default())
    }

    fn list(&self, all: &[Object]) -> String {
        if all.is_empty() {
            return format!("no {}", self.what);
        }
        names(all)
    }
}

/// Whether an object has that name, as people or as vSphere write it.
pub(super) fn is_named(object: &Object, name: &str) -> bool {
    object
        .props
        .text("name")
        .is_some_and(|found| found == name || unescape(found) == name)
}

/// That several have a name, and which: their paths and ids, as far as a message goes.
pub(super) async fn several_of(client: &Client, several: &[&Object]) -> String {
    let mut listed = Vec::new();
    for object in several.iter().take(NAMED) {
        // Where it lies helps; that it cannot be read does not matter.
        let path = inventory_path(client, &object.moref).await.unwrap_or_default();
        listed.push(format!("/{path} ({})", object.moref));
    }
    format!("{} have that name: {}", several.len(), listed.join(", "))
}

/// The names of objects, as far as a message goes.
pub(super) fn names(all: &[Object]) -> String {
    let mut names: Vec<_> = all
        .iter()
        .filter_map(|one| one.props.text("name").map(unescape))
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let listed = names.join(", ");
    if more > 0 {
        format!("{listed} and {more} more")
    } else {
        listed
    }
}
