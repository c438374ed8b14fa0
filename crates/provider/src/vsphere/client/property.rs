//! Reading properties.

use super::{Client, Trouble};
use crate::Kind;
use crate::vsphere::soap::{Arg, Element, Moref, VimFault};

/// Objects of a page, where the server wants no less.
const PAGE: u32 = 250;
/// The most pages that are followed: more objects than a vCenter can have.
const MAX_PAGES: usize = 2000;

/// Properties of an object, by their paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Props {
    values: Vec<(String, Element)>,
    missing: Vec<(String, VimFault)>,
}

impl Props {
    /// The value at a path; `None` where it is unset.
    pub(crate) fn get(&self, path: &str) -> Option<&Element> {
        self.values
            .iter()
            .find(|(name, _)| name == path)
            .map(|(_, value)| value)
    }

    /// The text of the value at a path, where there is some.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.get(path).map(Element::text).filter(|text| !text.is_empty())
    }

    /// The truth value at a path.
    pub(crate) fn flag(&self, path: &str) -> Option<bool> {
        self.get(path)?.flag()
    }

    /// The managed object at a path.
    pub(crate) fn moref(&self, path: &str) -> Option<Moref> {
        self.get(path)?.moref()
    }

    /// The managed objects of the list at a path.
    pub(crate) fn morefs(&self, path: &str) -> Vec<Moref> {
        let list = self.get(path).map(Element::children).unwrap_or_default();
        list.iter().filter_map(Element::moref).collect()
    }

    /// Why the server does not give a property, where it says so.
    pub(crate) fn refusal(&self, path: &str) -> Option<&VimFault> {
        self.missing
            .iter()
            .find(|(name, _)| name == path)
            .map(|(_, fault)| fault)
    }

    /// Takes in a property that has a new value, or none any more.
    pub(super) fn set(&mut self, path: &str, value: Option<Element>) {
        self.values.retain(|(name, _)| name != path);
        if let Some(value) = value {
            self.values.push((path.to_owned(), value));
        }
    }

    /// The properties of an `ObjectContent`.
    fn of(content: &Element) -> Self {
        let value = |set: &Element| Some((set.text_at("name")?.to_owned(), set.child("val")?.clone()));
        let missing = |set: &Element| {
            let fault = VimFault::of_localized(set.child("fault")?);
            Some((set.text_at("path")?.to_owned(), fault))
        };
        Self {
            values: content.all("propSet").filter_map(value).collect(),
            missing: content.all("missingSet").filter_map(missing).collect(),
        }
    }
}

/// An object and its properties.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// The object.
    pub(crate) moref: Moref,
    /// Its properties.
    pub(crate) props: Props,
}

impl Client {
    /// Reads properties of one object. [`NotFound`](Kind::NotFound) where there is no such object.
    pub(crate) async fn properties(&self, object: &Moref, paths: &[&'static str]) -> Result<Props, Trouble> {
        let set = Arg::object("objectSet", [Arg::moref("obj", object)]);
        let found = self.collect(filter_spec("specSet", &object.kind, paths, [set])).await?;
        let found = found.into_iter().next().map(|object| object.props);
        found.ok_or_else(|| Trouble::new(Kind::NotFound, format!("the server has no {object}")))
    }

    /// Reads properties of several objects of the same type. One that is gone meanwhile is left out.
    pub(crate) async fn properties_of(
        &self,
        objects: &[Moref],
        paths: &[&'static str],
    ) -> Result<Vec<Object>, Trouble> {
        let mut objects = objects.to_vec();
        while let Some(first) = objects.first() {
            let sets = objects
                .iter()
                .map(|object| Arg::object("objectSet", [Arg::moref("obj", object)]));
            let spec = filter_spec("specSet", &first.kind, paths, sets);
            match self.whole(&spec).await {
                Err(trouble) if trouble.is("ManagedObjectNotFound") => {
                    let (before, gone) = (objects.len(), trouble.object());
                    objects.retain(|object| Some(object) != gone);
                    if objects.len() == before {
                        return Err(trouble);
                    }
                }
                found => return found,
            }
        }
        Ok(Vec::new())
    }

    /// Reads properties of all objects of a type below `container`, in no order.
    pub(crate) async fn properties_below(
        &self,
        container: &Moref,
        kind: &'static str,
        paths: &[&'static str],
    ) -> Result<Vec<Object>, Trouble> {
        let session = self.session();
        match self.view(container, kind, paths).await {
            // The view went with its session.
            Err(_) if self.session() != session => self.view(container, kind, paths).await,
            found => found,
        }
    }

    async fn view(
        &self,
        container: &Moref,
        kind: &'static str,
        paths: &[&'static str],
    ) -> Result<Vec<Object>, Trouble> {
        let args = [
            Arg::moref("container", container),
            Arg::text("type", kind),
            Arg::text("recursive", true),
        ];
        let manager = &self.content().view_manager;
        let view = self.call_for_moref(manager, "CreateContainerView", &args).await?;
        let members = Arg::typed(
            "selectSet",
            "TraversalSpec",
            [
                Arg::text("name", "members"),
                Arg::text("type", "ContainerView"),
                Arg::text("path", "view"),
                Arg::text("skip", false),
            ],
        );
        let set = Arg::object(
            "objectSet",
            [Arg::moref("obj", &view), Arg::text("skip", true), members],
        );
        let found = self.collect(filter_spec("specSet", kind, paths, [set])).await;
        // It ends with the session at the latest.
        if let Err(trouble) = self.call(&view, "DestroyView", &[]).await {
            tracing::debug!(detail = trouble.detail, "could not destroy a view");
        }
        found
    }

    /// Collects, and once more from the first page where the session ended in between: pages go with it.
    async fn whole(&self, spec: &Arg) -> Result<Vec<Object>, Trouble> {
        let session = self.session();
        match self.collect(spec.clone()).await {
            Err(_) if self.session() != session => self.collect(spec.clone()).await,
            found => found,
        }
    }

    /// Follows the pages of an answer to their end.
    async fn collect(&self, spec: Arg) -> Result<Vec<Object>, Trouble> {
        let collector = &self.content().property_collector;
        let args = [spec, Arg::object("options", [Arg::text("maxObjects", PAGE)])];
        let mut answer = self.call(collector, "RetrievePropertiesEx", &args).await?;
        let mut objects = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(page) = answer.child("returnval") else {
                return Ok(objects);
            };
            let read = |content: &Element| {
                Some(Object {
                    moref: content.moref_at("obj")?,
                    props: Props::of(content),
                })
            };
            objects.extend(page.all("objects").filter_map(read));
            let Some(token) = page.text_at("token") else {
                return Ok(objects);
            };
            let args = [Arg::text("token", token)];
            answer = self.call(collector, "ContinueRetrievePropertiesEx", &args).await?;
        }
        Err(Trouble::new(Kind::Failed, "the server gives pages without end"))
    }
}

/// A `PropertyFilterSpec`: these properties of the objects of a type that are in these sets.
pub(super) fn filter_spec(
    name: &'static str,
    kind: &str,
    paths: &[&'static str],
    sets: impl IntoIterator<Item = Arg>,
) -> Arg {
    let mut properties = Arg::object("propSet", [Arg::text("type", kind), Arg::text("all", false)]);
    for path in paths {
        properties = properties.with(Arg::text("pathSet", path));
    }
    sets.into_iter().fold(Arg::object(name, [properties]), Arg::with)
}
