//! Manifests: files of YAML documents, as users write them, into typed resources.
//!
//! Nothing is guessed and nothing is passed over: an unknown kind, a misspelt field, two documents of one name, a value
//! out of bounds each become an error that names the file, the document, the object and the field. All errors are
//! collected, so that one run shows all of them. `Provider` and `VirtualMachine` keep the fields that are not known here,
//! because users have such manifests already.
//!
//! Architecture Invariant: an error about a Secret never shows any of its text.

mod document;
mod error;
mod fields;
mod references;
mod secret;

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::{ManifestError, Origin};
pub use references::KnownObjects;

use crate::{Key, ObjectMeta, Provider, Resource, Secret, VMMigration, VirtualMachine, crd, names, validate};
use document::{Body, Document};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A text with manifests, and how errors name it.
#[derive(Debug, Clone)]
pub struct Source {
    /// File name, or `stdin`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// An object, and where it was declared.
#[derive(Debug, Clone)]
pub struct Declared<T> {
    /// The object.
    pub object: T,
    /// Where.
    pub origin: Origin,
}

/// What the manifests declare.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Migrations. What a server would fill in (status, uid, …) is left out.
    pub migrations: BTreeMap<Key, Declared<VMMigration>>,
    /// Providers.
    pub providers: BTreeMap<Key, Declared<Provider>>,
    /// Virtual machines, with their status: it holds the id at the hypervisor.
    pub virtual_machines: BTreeMap<Key, Declared<VirtualMachine>>,
    /// Secrets, `stringData` merged into `data`.
    pub secrets: BTreeMap<Key, Declared<Secret>>,
}

impl Manifests {
    /// Reads all documents of all sources.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(sources: &[Source]) -> Result<Self, Vec<ManifestError>> {
        let mut manifests = Self::default();
        let mut errors = Vec::new();
        for source in sources {
            for document in document::split(source) {
                if let Err(found) = manifests.add(&document) {
                    errors.extend(found);
                }
            }
        }
        if errors.is_empty() { Ok(manifests) } else { Err(errors) }
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty()
            && self.providers.is_empty()
            && self.virtual_machines.is_empty()
            && self.secrets.is_empty()
    }

    /// Adds one document, or each item of a `List`.
    fn add(&mut self, document: &Document<'_>) -> Result<(), Vec<ManifestError>> {
        let header = document.header().map_err(|error| vec![error])?;
        let ours = api_version();
        match (header.api_version.as_str(), header.kind.as_str()) {
            ("v1", "List") => self.add_list(document),
            ("v1", "Secret") => self.add_secret(document).map_err(|error| vec![error]),
            (api, "VMMigration") if api == ours => self.add_migration(document),
            (api, "Provider") if api == ours => insert(&mut self.providers, read(document, "Provider")?),
            (api, "VirtualMachine") if api == ours => {
                insert(&mut self.virtual_machines, read(document, "VirtualMachine")?)
            }
            (api, kind) => Err(vec![unknown(document, api, kind)]),
        }
    }

    fn add_list(&mut self, document: &Document<'_>) -> Result<(), Vec<ManifestError>> {
        #[derive(serde::Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<Value>,
        }
        if document.is_item() {
            return Err(vec![
                document.error("a List cannot hold another List: put its items into the outer one"),
            ]);
        }
        let list: List = document.parse_quietly().map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        for (index, item) in list.items.into_iter().enumerate() {
            let item = Document {
                origin: document.origin.item(index),
                body: Body::Item(item),
            };
            errors.extend(self.add(&item).err().into_iter().flatten());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn add_secret(&mut self, document: &Document<'_>) -> Result<(), ManifestError> {
        let secret = secret::read(document)?;
        let (secret, key) = named(document, "Secret", secret)?;
        add_once(&mut self.secrets, document, "Secret", key, secret)
    }

    fn add_migration(&mut self, document: &Document<'_>) -> Result<(), Vec<ManifestError>> {
        let mut declared = read::<VMMigration>(document, "VMMigration")?;
        let migration = &mut declared.object;
        migration.status = None;
        migration.metadata = ObjectMeta {
            name: migration.metadata.name.take(),
            namespace: migration.metadata.namespace.take(),
            labels: migration.metadata.labels.take(),
            annotations: migration.metadata.annotations.take(),
            ..ObjectMeta::default()
        };
        let broken: Vec<_> = validate::migration(migration)
            .into_iter()
            .map(|violation| {
                document
                    .error(violation.to_string())
                    .of(object("VMMigration", &key_of(migration)))
            })
            .collect();
        if !broken.is_empty() {
            return Err(broken);
        }
        insert(&mut self.migrations, declared)
    }
}

/// The `apiVersion` of our kinds.
fn api_version() -> String {
    format!("{}/{}", names::GROUP, names::VERSION)
}

/// The key of an object that has a name and a namespace.
pub fn key_of<T: ResourceExt>(object: &T) -> Key {
    Key::new(
        object.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        object.name_any(),
    )
}

/// How errors name an object.
fn object(kind: &str, key: &Key) -> String {
    format!("{kind} {key}")
}

/// Reads one of our kinds: no unknown field where none is preserved, the types right, the name usable.
fn read<T>(document: &Document<'_>, kind: &'static str) -> Result<Declared<T>, Vec<ManifestError>>
where
    T: DeserializeOwned + Resource<Scope = NamespaceResourceScope>,
{
    let raw: Value = document.parse_quietly().map_err(|error| vec![error])?;
    let name = fields::name(kind, &raw);
    let schema = crd::of(kind).map_or(&Value::Null, crd::Crd::schema);
    let unknown = fields::unknown(schema, &raw);
    if !unknown.is_empty() {
        return Err(unknown
            .into_iter()
            .map(|detail| document.error(detail).of(name.clone()))
            .collect());
    }
    let object: T = document.parse().map_err(|error| vec![error.of(name)])?;
    let (object, _) = named(document, kind, object).map_err(|error| vec![error])?;
    Ok(Declared {
        object,
        origin: document.origin.clone(),
    })
}

/// Gives the object its namespace and checks its name.
fn named<T: ResourceExt>(document: &Document<'_>, kind: &str, mut object: T) -> Result<(T, Key), ManifestError> {
    let Some(name) = object.meta().name.clone() else {
        return Err(document
            .error("metadata.name is missing: give the object a name")
            .of(kind.to_owned()));
    };
    let key = Key::new(object.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()), name);
    if let Err(detail) = fields::check_name("metadata.name", &key.name, 253)
        .and_then(|()| fields::check_name("metadata.namespace", &key.namespace, 63))
    {
        return Err(document.error(detail).of(kind.to_owned()));
    }
    object.meta_mut().namespace = Some(key.namespace.clone());
    Ok((object, key))
}

fn insert<T>(map: &mut BTreeMap<Key, Declared<T>>, declared: Declared<T>) -> Result<(), Vec<ManifestError>>
where
    T: Resource<DynamicType = ()>,
{
    let key = key_of(&declared.object);
    once(map.get(&key), &declared.origin, &T::kind(&()), &key).map_err(|error| vec![error])?;
    map.insert(key, declared);
    Ok(())
}

fn add_once(
    map: &mut BTreeMap<Key, Declared<Secret>>,
    document: &Document<'_>,
    kind: &str,
    key: Key,
    secret: Secret,
) -> Result<(), ManifestError> {
    once(map.get(&key), &document.origin, kind, &key)?;
    map.insert(
        key,
        Declared {
            object: secret,
            origin: document.origin.clone(),
        },
    );
    Ok(())
}

/// Refuses a second object of one name.
fn once<T>(first: Option<&Declared<T>>, origin: &Origin, kind: &str, key: &Key) -> Result<(), ManifestError> {
    first.map_or(Ok(()), |first| {
        Err(ManifestError::new(
            origin.clone(),
            format!(
                "it is declared already in {}: remove one of the two or rename it",
                first.origin
            ),
        )
        .of(object(kind, key)))
    })
}

fn unknown(document: &Document<'_>, api: &str, kind: &str) -> ManifestError {
    let ours = api_version();
    document.error(format!(
        "{api} {kind} is not known here: allowed are {ours} VMMigration, Provider and VirtualMachine, v1 Secret and v1 List"
    ))
}
