//! Which objects of other namespaces a resource names, and what that lets its author do to them.

use std::fmt;

use serde_json::Value;
use vmferry_api::Key;
use vmferry_api::names::GROUP;

/// A reference into another namespace: it takes `verb` on the object to declare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The field that has it.
    pub field: &'static str,
    /// What it names.
    pub target: Target,
    /// The verb that RBAC must allow on it.
    pub verb: &'static str,
    /// The object.
    pub object: Key,
}

/// A kind of object that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A Secret.
    Secret,
    /// A Provider.
    Provider,
    /// A VirtualMachine.
    VirtualMachine,
}

impl Target {
    /// Its API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Secret => "",
            Self::Provider | Self::VirtualMachine => GROUP,
        }
    }

    /// Its resource.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Provider => "providers",
            Self::VirtualMachine => "virtualmachines",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "Secret",
            Self::Provider => "Provider",
            Self::VirtualMachine => "VirtualMachine",
        })
    }
}

/// The references into other namespaces of an object that lives in `namespace` and is one of `resource`. Only these fields are
/// looked at: where another manager's CRD has more, or has them in another form, its objects are no business of ours.
pub fn references(resource: &str, namespace: &str, object: &Value) -> Vec<Reference> {
    let spec = Spec { namespace, object };
    let named = match resource {
        "vmmigrations" => of_migration(&spec),
        "virtualmachines" => vec![spec.reference("spec.providerRef", Target::Provider, "use")],
        "providers" => vec![spec.reference("spec.credentialSecretRef", Target::Secret, "get")],
        _ => Vec::new(),
    };
    let elsewhere = |reference: &Reference| reference.object.namespace != namespace;
    named.into_iter().flatten().filter(elsewhere).collect()
}

/// A migration reads the source's disks and snapshots them, which is more than looking at it, and may delete it; it uses the
/// target's Provider, makes a VM there and reads the Secret of its storage.
fn of_migration(spec: &Spec<'_>) -> Vec<Option<Reference>> {
    let source_namespace = spec.text("/spec/sourceNamespace").unwrap_or(spec.namespace);
    let target_namespace = spec.text("/spec/targetNamespace").unwrap_or(source_namespace);
    let source = |field, verb| {
        spec.named(
            field,
            Target::VirtualMachine,
            verb,
            source_namespace,
            "/spec/sourceName",
        )
    };
    let deletes = spec.object.pointer("/spec/cleanupPolicy/deleteSource") == Some(&Value::Bool(true));
    vec![
        source("spec.sourceNamespace", "update"),
        deletes
            .then(|| source("spec.cleanupPolicy.deleteSource", "delete"))
            .flatten(),
        spec.reference("spec.targetProviderRef", Target::Provider, "use"),
        spec.named(
            "spec.targetNamespace",
            Target::VirtualMachine,
            "create",
            target_namespace,
            "/spec/targetName",
        ),
        spec.reference("spec.storage.credentialsSecretRef", Target::Secret, "get"),
    ]
}

/// The fields of an object.
struct Spec<'a> {
    namespace: &'a str,
    object: &'a Value,
}

impl Spec<'_> {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.object.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    /// The object of name and namespace at `field`, in the own namespace unless another is given.
    fn reference(&self, field: &'static str, target: Target, verb: &'static str) -> Option<Reference> {
        let pointer = format!("/{}", field.replace('.', "/"));
        let namespace = self.text(&format!("{pointer}/namespace")).unwrap_or(self.namespace);
        self.named(field, target, verb, namespace, &format!("{pointer}/name"))
    }

    /// The object in `namespace` whose name is at `name`.
    fn named(
        &self,
        field: &'static str,
        target: Target,
        verb: &'static str,
        namespace: &str,
        name: &str,
    ) -> Option<Reference> {
        let object = Key::new(namespace, self.text(name)?);
        Some(Reference {
            field,
            target,
            verb,
            object,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(resource: &str, object: &Value) -> Vec<String> {
        let found = references(resource, "team", object);
        let line = |it: &Reference| format!("{} {} {} {}", it.field, it.verb, it.target.resource(), it.object);
        found.iter().map(line).collect()
    }

    #[test]
    fn a_migration_within_its_namespace_needs_nothing() {
        let plain = json!({ "spec": {
            "sourceName": "web", "sourceNamespace": "team", "targetProviderRef": { "name": "kvm" }, "targetName": "web",
            "storage": { "type": "s3", "credentialsSecretRef": { "name": "s3", "namespace": "team" } },
            "cleanupPolicy": { "deleteSource": true },
        }});
        assert_eq!(told("vmmigrations", &plain), [""; 0]);
    }

    #[test]
    fn every_reference_of_a_migration_is_found() {
        let object = json!({ "spec": {
            "sourceName": "web", "sourceNamespace": "a", "targetProviderRef": { "name": "kvm", "namespace": "b" },
            "targetName": "web-new", "targetNamespace": "c",
            "storage": { "type": "s3", "credentialsSecretRef": { "name": "s3", "namespace": "d" } },
            "cleanupPolicy": { "deleteSource": true },
        }});
        let expected = [
            "spec.sourceNamespace update virtualmachines a/web",
            "spec.cleanupPolicy.deleteSource delete virtualmachines a/web",
            "spec.targetProviderRef use providers b/kvm",
            "spec.targetNamespace create virtualmachines c/web-new",
            "spec.storage.credentialsSecretRef get secrets d/s3",
        ];
        assert_eq!(told("vmmigrations", &object), expected);
    }

    #[test]
    fn the_target_is_in_the_sources_namespace_unless_it_says_otherwise() {
        let object = json!({ "spec": {
            "sourceName": "web", "sourceNamespace": "a", "targetProviderRef": { "name": "kvm" }, "targetName": "web",
            "storage": { "type": "nfs" },
        }});
        let expected = [
            "spec.sourceNamespace update virtualmachines a/web",
            "spec.targetNamespace create virtualmachines a/web",
        ];
        assert_eq!(told("vmmigrations", &object), expected);
    }

    #[test]
    fn virtual_machines_and_providers_name_others_too() {
        let vm = json!({ "spec": { "providerRef": { "name": "kvm", "namespace": "infra" } } });
        assert_eq!(
            told("virtualmachines", &vm),
            ["spec.providerRef use providers infra/kvm"]
        );
        let provider = json!({ "spec": { "credentialSecretRef": { "name": "root", "namespace": "infra" } } });
        assert_eq!(
            told("providers", &provider),
            ["spec.credentialSecretRef get secrets infra/root"]
        );
    }

    #[test]
    fn fields_that_are_not_there_or_of_another_form_name_nothing() {
        for object in [
            json!({}),
            json!({ "spec": [] }),
            json!({ "spec": { "providerRef": "kvm", "credentialSecretRef": { "name": 7, "namespace": "a" } } }),
            json!({ "spec": { "providerRef": { "namespace": "a" }, "credentialSecretRef": { "name": "", "namespace": "a" } } }),
        ] {
            for resource in ["vmmigrations", "virtualmachines", "providers", "pods"] {
                assert_eq!(told(resource, &object), [""; 0], "{resource} {object}");
            }
        }
    }
}
