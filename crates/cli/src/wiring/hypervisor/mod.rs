//! From a Provider to its hypervisor.

mod defaults;
mod proxmox;
mod vsphere;

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use vmferry_api::manifest::key_of;
use vmferry_api::{Provider, ProviderType, Secret};
use vmferry_provider::credentials::Credentials;
use vmferry_provider::libvirt::{self, Libvirt};
use vmferry_provider::proxmox::Proxmox;
use vmferry_provider::vsphere::VSphere;
use vmferry_provider::{Error, Hypervisor, Kind};

use super::secret::{NotText, Values};

/// The variable of `spec.runtime.env` that names the storage for volumes.
const DEFAULT_STORAGE: &str = "PROVIDER_DEFAULT_STORAGE";

/// Connects to the hypervisor of a provider.
pub async fn open(
    provider: &Provider,
    secret: Option<&Secret>,
    runtime_dir: PathBuf,
) -> Result<Arc<dyn Hypervisor>, Error> {
    let credentials = || {
        credentials(Values::of(secret)).map_err(|NotText { object }| {
            Error::new(Kind::Invalid, "read", object)
                .detail(NotText::DETAIL)
                .remedy(NotText::REMEDY)
        })
    };
    Ok(match provider.spec.provider_type {
        ProviderType::Libvirt => Arc::new(Libvirt::connect(libvirt(provider, credentials()?, runtime_dir)).await?),
        ProviderType::Vsphere => Arc::new(VSphere::connect(vsphere::config(provider, credentials()?)?).await?),
        ProviderType::Proxmox => Arc::new(Proxmox::connect(proxmox::config(provider, credentials()?)?).await?),
        other @ (ProviderType::Firecracker | ProviderType::Qemu) => {
            let found = serde_json::to_string(&other).unwrap_or_default();
            return Err(
                Error::new(Kind::Unsupported, "use", format!("Provider {}", key_of(provider)))
                    .detail(format!(
                        "spec.type {found} has no snapshots and volumes that vmferry could use"
                    ))
                    .remedy("vmferry takes spec.type libvirt, vsphere and proxmox"),
            );
        }
    })
}

fn libvirt(provider: &Provider, credentials: Credentials, runtime_dir: PathBuf) -> libvirt::Config {
    if provider.spec.insecure_skip_verify == Some(true) {
        tracing::warn!(provider = %key_of(provider), "spec.insecureSkipVerify is not honoured: libvirt hosts are always \
            verified; give known_hosts or ca.crt in the Secret");
    }
    libvirt::Config {
        endpoint: provider.spec.endpoint.clone(),
        credentials,
        runtime_dir,
        default_storage: default_storage(provider),
    }
}

/// Whether certificates go unverified, which is said aloud.
fn insecure(provider: &Provider) -> bool {
    let insecure = provider.spec.insecure_skip_verify == Some(true);
    if insecure {
        tracing::warn!(provider = %key_of(provider), "spec.insecureSkipVerify: where the Secret has neither ca.crt nor \
            fingerprint, whoever is on the way to the host can read the password; give one of them instead");
    }
    insecure
}

/// The storage for volumes where a migration names none: `spec.defaults.datastore`, else the variable that other
/// operators of the group know.
fn default_storage(provider: &Provider) -> Option<String> {
    let declared = provider
        .spec
        .defaults
        .as_ref()
        .and_then(|defaults| defaults.datastore.clone());
    declared.or_else(|| {
        let variables = provider.spec.other.get("runtime")?.get("env")?.as_array()?;
        let variable = variables.iter().find(|variable| variable["name"] == DEFAULT_STORAGE)?;
        variable["value"].as_str().map(str::to_owned)
    })
}

/// The credentials in a Provider's Secret.
fn credentials(values: Values<'_>) -> Result<Credentials, NotText> {
    Ok(Credentials {
        username: values.line("username")?,
        password: values.hidden("password")?,
        ssh_private_key: values.text("ssh-privatekey")?.map(SecretString::from),
        known_hosts: values.text("known_hosts")?,
        ca: values.text("ca.crt")?,
        token_id: values.line("token_id")?,
        token_secret: values.hidden("token_secret")?,
        fingerprint: match values.line("fingerprint")? {
            None => values.line("thumbprint")?,
            found => found,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{declared, secret_of};
    use super::*;

    pub(super) fn provider(spec: &str) -> Provider {
        let text =
            format!("apiVersion: infra.virtrigaud.io/v1beta1\nkind: Provider\nmetadata: {{name: p}}\nspec: {spec}\n");
        declared(&text).providers.into_values().next().unwrap().object
    }

    #[tokio::test]
    async fn a_type_that_cannot_be_moved_is_named_with_what_can() {
        for kind in ["firecracker", "qemu"] {
            let provider = provider(&format!("{{type: {kind}, endpoint: x}}"));
            let Err(error) = open(&provider, None, PathBuf::from("/nonexistent")).await else {
                panic!("{kind} was opened");
            };
            assert_eq!(error.kind(), Kind::Unsupported);
            let text = error.to_string();
            assert!(
                text.contains(kind) && text.contains("takes spec.type libvirt, vsphere and proxmox"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_keys_of_a_secret_become_credentials_that_do_not_print() {
        use secrecy::ExposeSecret;

        let secret = secret_of(&json!({
            "username": "root", "password": "hunter2\n", "ssh-privatekey": "KEY\n", "known_hosts": "host key",
            "ca.crt": "PEM", "token_id": "a@pve!t\n", "token_secret": "t0ken", "thumbprint": "AA:BB",
        }));
        let found = credentials(Values::of(Some(&secret))).unwrap();
        assert_eq!(found.username.as_deref(), Some("root"));
        assert_eq!(found.password.as_ref().unwrap().expose_secret(), "hunter2");
        assert_eq!(found.ssh_private_key.as_ref().unwrap().expose_secret(), "KEY\n");
        assert_eq!(found.known_hosts.as_deref(), Some("host key"));
        assert_eq!(found.ca.as_deref(), Some("PEM"));
        assert_eq!(found.token_id.as_deref(), Some("a@pve!t"));
        assert_eq!(found.token_secret.as_ref().unwrap().expose_secret(), "t0ken");
        assert_eq!(found.fingerprint.as_deref(), Some("AA:BB"));
        let printed = format!("{found:?}");
        let shows = |hidden: &&str| printed.contains(*hidden);
        assert!(!["hunter2", "KEY", "t0ken"].iter().any(shows), "{printed}");
    }

    #[test]
    fn the_default_storage_is_found_where_users_have_it() {
        for (spec, storage) in [
            ("{type: libvirt, endpoint: x}", None),
            ("{type: libvirt, endpoint: x, defaults: {datastore: a}}", Some("a")),
            (
                "{type: libvirt, endpoint: x, runtime: {env: [{name: PROVIDER_DEFAULT_STORAGE, value: b}]}}",
                Some("b"),
            ),
        ] {
            assert_eq!(default_storage(&provider(spec)).as_deref(), storage, "{spec}");
        }
    }
}
