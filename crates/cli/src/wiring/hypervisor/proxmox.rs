//! From a Provider to Proxmox VE.

use vmferry_api::Provider;
use vmferry_provider::Error;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::proxmox::{Config, Shared, Ssh};

use super::defaults::Defaults;
use super::vsphere::network;
use super::{default_storage, insecure};

/// What the Provider says.
pub(super) fn config(provider: &Provider, credentials: Credentials) -> Result<Config, Error> {
    let defaults = Defaults::of(provider);
    let (ssh, shared) = (defaults.object("ssh")?, defaults.object("shared")?);
    let usual = Ssh::default();
    Ok(Config {
        endpoint: provider.spec.endpoint.clone(),
        credentials,
        insecure: insecure(provider),
        node: defaults.text("node")?,
        storage: default_storage(provider),
        import_storage: defaults.text("importStorage")?,
        bridge: network(provider),
        ssh: Ssh {
            user: ssh.text("user")?.unwrap_or(usual.user),
            port: ssh.port("port")?.unwrap_or(usual.port),
            host: ssh.text("host")?,
        },
        shared: if shared.is_there() {
            Some(Shared {
                storage: shared.required("storage")?,
                path: shared.required("path")?.into(),
            })
        } else {
            None
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::provider;
    use super::*;

    #[test]
    fn everything_is_found_where_it_is_said() {
        let spec = "{type: proxmox, endpoint: pve, defaults: {datastore: local-lvm, network: vmbr1, node: pve2, \
                    importStorage: stage, ssh: {user: ferry, port: 2222, host: pve2.lan}, \
                    shared: {storage: nfs, path: /mnt/nfs}}}";
        let config = config(&provider(spec), Credentials::default()).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((config.node, config.storage), (text("pve2"), text("local-lvm")));
        assert_eq!((config.import_storage, config.bridge), (text("stage"), text("vmbr1")));
        assert_eq!(
            (config.ssh.user.as_str(), config.ssh.port, config.ssh.host),
            ("ferry", 2222, text("pve2.lan"))
        );
        let shared = config.shared.unwrap();
        assert_eq!(
            (shared.storage.as_str(), shared.path.to_str()),
            ("nfs", Some("/mnt/nfs"))
        );
        assert!(!config.insecure);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (defaults, text) in [
            ("{ssh: {port: 70000}}", "spec.defaults.ssh.port is 70000"),
            ("{ssh: root}", "spec.defaults.ssh is \"root\""),
            ("{shared: {path: /x}}", "spec.defaults.shared.storage is not set"),
        ] {
            let provider = provider(&format!("{{type: proxmox, endpoint: pve, defaults: {defaults}}}"));
            let error = config(&provider, Credentials::default()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
