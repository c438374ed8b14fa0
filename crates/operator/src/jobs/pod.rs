//! The pod of a worker: what it is told, what it may do, and what of the cluster it sees.
//!
//! It runs as nobody in particular, on a file system that it cannot write to, and gets only the Secrets that its job names.
//! Those of the migration's own namespace are files; a Secret of another namespace cannot be mounted, and is read by the worker.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, NFSVolumeSource, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use vmferry_api::{MigrationStorage, Provider, StorageType};
use vmferry_engine::port::Job;

use super::Options;
use super::names::{ENV_JOB, ENV_POD_NAME, ENV_RUN, ENV_RUNTIME_DIR, ENV_SECRETS_DIR, WORKER};
use super::spec::provider_of;

/// Where the Secrets are.
const SECRETS: &str = "/var/run/vmferry/secrets";
/// Where sockets go.
const RUNTIME: &str = "/var/run/vmferry/run";
/// Where NFS storage is mounted.
const STAGING: &str = "/var/run/vmferry/staging";
/// How long a worker that is told to stop may take to bring what is under way to a safe point.
const GRACE: i64 = 60;

/// The job as the worker sees it: NFS storage that the cluster mounts is a path there.
pub(super) fn as_seen_inside(job: &Job, options: &Options) -> Job {
    let mut job = job.clone();
    if nfs(&job.storage, options).is_some() {
        job.storage.endpoint = None;
        job.storage.path = Some(STAGING.to_owned());
    }
    job
}

/// The pod of a job: the template of the options, with what makes it a worker above.
pub(super) fn template(
    job: &Job,
    told: &str,
    run: &str,
    provider: Option<&Provider>,
    labels: BTreeMap<String, String>,
    options: &Options,
) -> PodTemplateSpec {
    let (volumes, mounts) = volumes(job, provider, options);
    let mut container = Container {
        name: WORKER.to_owned(),
        image: Some(options.image.clone()),
        args: Some([WORKER.to_owned()].into_iter().chain(options.args.clone()).collect()),
        env: Some(environment(told, run)),
        volume_mounts: Some(mounts),
        security_context: Some(confined()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    };
    if !says_resources(&options.pod_template) {
        container.resources = Some(least());
    }
    let worker = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            restart_policy: Some("Never".to_owned()),
            service_account_name: options.service_account.clone(),
            // The lease is renewed with it.
            automount_service_account_token: Some(true),
            security_context: Some(nobody()),
            termination_grace_period_seconds: Some(GRACE),
            ..PodSpec::default()
        }),
    };
    let mut template = options.pod_template.clone();
    template.merge_from(worker);
    template
}

fn environment(told: &str, run: &str) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let pod_name = EnvVar {
        name: ENV_POD_NAME.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
    };
    vec![
        plain(ENV_JOB, escaped(told)),
        plain(ENV_RUN, run.to_owned()),
        plain(ENV_SECRETS_DIR, SECRETS.to_owned()),
        plain(ENV_RUNTIME_DIR, RUNTIME.to_owned()),
        pod_name,
    ]
}

/// A text that comes out of a variable as it went in: `$(NAME)` would be replaced by the value of another one.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn volumes(job: &Job, provider: Option<&Provider>, options: &Options) -> (Vec<Volume>, Vec<VolumeMount>) {
    let sockets = Volume {
        name: "runtime".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![(sockets, RUNTIME.to_owned(), None)];
    for (index, name) in secrets(job, provider).into_iter().enumerate() {
        let path = format!("{SECRETS}/{}/{name}", job.migration.namespace);
        volumes.push((secret(format!("secret-{index}"), name), path, Some(true)));
    }
    if let Some(source) = nfs(&job.storage, options) {
        let staging = Volume {
            name: "staging".to_owned(),
            nfs: Some(source),
            ..Volume::default()
        };
        volumes.push((staging, STAGING.to_owned(), None));
    }
    let mounted = volumes.into_iter().map(|(volume, mount_path, read_only)| {
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path,
            read_only,
            ..VolumeMount::default()
        };
        (volume, mount)
    });
    mounted.unzip()
}

/// The Secrets of the migration's own namespace that the job names.
fn secrets(job: &Job, provider: Option<&Provider>) -> BTreeSet<String> {
    let own = &job.migration.namespace;
    let of_provider = provider.and_then(|provider| provider.spec.credential_secret_ref.as_ref());
    let of_provider = of_provider.map(|reference| (reference, &provider_of(job).namespace));
    let of_storage = job
        .storage
        .credentials_secret_ref
        .as_ref()
        .map(|reference| (reference, own));
    let named = of_provider.into_iter().chain(of_storage);
    let here = named.filter(|(reference, default)| reference.namespace.as_ref().unwrap_or(default) == own);
    let names = here.filter_map(|(reference, _)| reference.name.clone());
    names.filter(|name| !name.is_empty()).collect()
}

/// A Secret that is not there keeps no pod from starting: its worker says what is missing.
fn secret(volume: String, name: String) -> Volume {
    Volume {
        name: volume,
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What the cluster mounts, if it does. A Secret of NFS storage holds mount options, which a volume of a pod cannot have; they,
/// and ports, are for the client in the worker.
fn nfs(storage: &MigrationStorage, options: &Options) -> Option<NFSVolumeSource> {
    if !options.nfs_volumes || storage.storage_type != StorageType::Nfs || storage.credentials_secret_ref.is_some() {
        return None;
    }
    let server = storage.endpoint.clone().filter(|server| is_plain(server))?;
    let path = storage.path.clone().filter(|path| path.starts_with('/'))?;
    Some(NFSVolumeSource {
        path,
        server,
        read_only: None,
    })
}

/// A name or an IPv4 address, and nothing else.
fn is_plain(server: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    !server.is_empty() && server.chars().all(fits)
}

fn says_resources(template: &PodTemplateSpec) -> bool {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let mut worker = containers.filter(|container| container.name == WORKER);
    worker.any(|container| container.resources.is_some())
}

/// What a worker asks for where the template does not say: its buffers, and a part of a processor for its hashes.
fn least() -> ResourceRequirements {
    let amounts = [("cpu", "500m"), ("memory", "256Mi")];
    ResourceRequirements {
        requests: Some(
            amounts
                .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .into(),
        ),
        ..ResourceRequirements::default()
    }
}

fn nobody() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::spec::kube_job;
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the JSON is written where it is given")]
    fn job(storage: Value) -> Job {
        let direction = json!({ "import": { "provider": { "namespace": "vms", "name": "new" }, "readback": false } });
        let job = json!({
            "id": "import-0123456789ab-0", "migration": { "namespace": "vms", "name": "m" },
            "owner": { "uid": "01234567-89ab-4def-8123-456789abcdef" }, "direction": direction,
            "storage": storage, "disks": [],
        });
        serde_json::from_value(job).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "the JSON is written where it is given")]
    fn provider(secret: Value) -> Provider {
        let spec = json!({ "type": "libvirt", "endpoint": "x", "credentialSecretRef": secret });
        let provider = json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "Provider", "metadata": { "name": "new" }, "spec": spec,
        });
        serde_json::from_value(provider).unwrap()
    }

    /// The pod, as the API server gets it.
    fn made(storage: Value, secret: Value, options: &Options) -> Value {
        let made = kube_job(&job(storage), "r1", Some(&provider(secret)), options).unwrap();
        serde_json::to_value(made).unwrap()["spec"]["template"].take()
    }

    fn variable(pod: &Value, name: &str) -> Value {
        let variables = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}"))["value"].clone()
    }

    /// What a kubelet makes of a value, by the rules of the API: `$$` is `$`, `$(NAME)` is looked up.
    fn expanded(value: &str) -> String {
        let mut out = String::new();
        let mut rest = value.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, rest.peek()) {
                ('$', Some('$')) => {
                    rest.next();
                    out.push('$');
                }
                ('$', Some('(')) => out.push_str("<looked up>"),
                _ => out.push(c),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_told_comes_out_as_it_went_in(text in "[$(){}a-c\"]{0,20}") {
            prop_assert_eq!(expanded(&escaped(&text)), text);
        }
    }

    #[test]
    fn a_worker_may_nothing_that_it_does_not_need() {
        let pod = made(
            json!({ "type": "nfs", "path": "/m" }),
            Value::Null,
            &Options::new("image:1"),
        );
        let spec = &pod["spec"];
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let worker = &spec["containers"][0];
        assert_eq!(
            (&worker["image"], &worker["args"]),
            (&json!("image:1"), &json!(["worker"]))
        );
        let context = json!({
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        });
        assert_eq!(worker["securityContext"], context);
        assert_eq!(spec["volumes"], json!([{ "name": "runtime", "emptyDir": {} }]));
    }

    #[test]
    fn only_the_secrets_that_are_named_and_can_be_are_mounted() {
        let storage = |secret: Value| json!({ "type": "s3", "bucket": "b", "credentialsSecretRef": secret });
        let mounted = |storage: Value, secret: Value| {
            let pod = made(storage, secret, &Options::new("i"));
            let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().clone();
            let paths = mounts.iter().filter(|mount| mount["readOnly"] == true);
            paths
                .map(|mount| mount["mountPath"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let path = |name: &str| format!("/var/run/vmferry/secrets/vms/{name}");
        let own = |name: &str| json!({ "name": name });
        assert_eq!(mounted(storage(own("s3")), own("ssh")), [path("s3"), path("ssh")]);
        assert_eq!(mounted(storage(own("same")), own("same")), [path("same")]);
        let elsewhere = json!({ "name": "s3", "namespace": "default" });
        assert_eq!(mounted(storage(elsewhere), own("ssh")), [path("ssh")]);
        assert_eq!(mounted(json!({ "type": "s3" }), Value::Null), Vec::<String>::new());
    }

    #[test]
    fn nfs_is_a_volume_where_the_cluster_can_mount_it() {
        let mut options = Options::new("i");
        let served = json!({ "type": "nfs", "path": "/export/$HOME", "endpoint": "nfs.example.com" });
        let told =
            |pod: &Value| -> Job { serde_json::from_str(&expanded(variable(pod, ENV_JOB).as_str().unwrap())).unwrap() };
        let pod = made(served.clone(), Value::Null, &options);
        assert_eq!(told(&pod).storage, job(served.clone()).storage);

        options.nfs_volumes = true;
        let pod = made(served, Value::Null, &options);
        let volume = json!({ "name": "staging", "nfs": { "path": "/export/$HOME", "server": "nfs.example.com" } });
        assert_eq!(pod["spec"]["volumes"][1], volume);
        let storage = told(&pod).storage;
        assert_eq!((storage.path.as_deref(), storage.endpoint), (Some(STAGING), None));

        for unfit in [
            json!({ "type": "nfs", "path": "/e", "endpoint": "nfs.example.com:2050" }),
            json!({ "type": "nfs", "path": "/e", "endpoint": "nfs", "credentialsSecretRef": { "name": "o" } }),
            json!({ "type": "nfs", "path": "/e" }),
            json!({ "type": "http", "endpoint": "nfs" }),
        ] {
            let pod = made(unfit.clone(), Value::Null, &options);
            assert_eq!(told(&pod).storage, job(unfit).storage);
        }
    }

    #[test]
    fn a_template_lies_under_what_makes_it_a_worker() {
        let pod_template = json!({
            "metadata": { "annotations": { "a": "b" }, "labels": { "team": "x", "app.kubernetes.io/name": "y" } },
            "spec": {
                "nodeSelector": { "disk": "fast" }, "priorityClassName": "low", "restartPolicy": "Always",
                "tolerations": [{ "key": "movers", "operator": "Exists" }],
                "containers": [{
                    "name": "worker", "image": "other", "resources": { "limits": { "memory": "2Gi" } },
                    "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy" }, { "name": "VMFERRY_RUN", "value": "x" }],
                }],
            },
        });
        let mut options = Options::new("image:1");
        options.args = vec!["--log-format=json".to_owned()];
        options.service_account = Some("mover".to_owned());
        options.pod_template = serde_json::from_value(pod_template).unwrap();
        let pod = made(json!({ "type": "nfs", "path": "/m" }), Value::Null, &options);
        let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
        assert_eq!(metadata["annotations"], json!({ "a": "b" }));
        assert_eq!(
            (
                &metadata["labels"]["team"],
                &metadata["labels"]["app.kubernetes.io/name"]
            ),
            (&json!("x"), &json!("vmferry-worker"))
        );
        assert_eq!(
            (&spec["restartPolicy"], &spec["priorityClassName"]),
            (&json!("Never"), &json!("low"))
        );
        assert_eq!(
            (&spec["nodeSelector"]["disk"], &spec["tolerations"][0]["key"]),
            (&json!("fast"), &json!("movers"))
        );
        assert_eq!(spec["serviceAccountName"], "mover");
        assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
        let worker = &spec["containers"][0];
        assert_eq!(
            (&worker["image"], &worker["args"]),
            (&json!("image:1"), &json!(["worker", "--log-format=json"]))
        );
        assert_eq!(worker["resources"], json!({ "limits": { "memory": "2Gi" } }));
        assert_eq!(
            (variable(&pod, "HTTPS_PROXY"), variable(&pod, "VMFERRY_RUN")),
            (json!("http://proxy"), json!("r1"))
        );
    }

    #[test]
    fn what_is_too_long_to_be_told_is_refused() {
        let mut job = job(json!({ "type": "nfs", "path": "/m" }));
        let disk = json!({ "name": "d".repeat(200), "capacity": 1, "object": "a/b/c", "staged_format": "qcow2", "target": null });
        job.disks = vec![serde_json::from_value(disk).unwrap(); 1000];
        let error = kube_job(&job, "r", None, &Options::new("i")).unwrap_err();
        assert!(error.to_string().contains("1000 disks"), "{error}");
    }
}
