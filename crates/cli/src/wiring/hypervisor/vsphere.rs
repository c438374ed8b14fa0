//! From a Provider to a vCenter or an ESXi host.

use vmferry_api::Provider;
use vmferry_provider::Error;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::vsphere::{Config, Placement};

use super::defaults::Defaults;
use super::{default_storage, insecure};

/// What the Provider says.
pub(super) fn config(provider: &Provider, credentials: Credentials) -> Result<Config, Error> {
    let defaults = Defaults::of(provider);
    Ok(Config {
        endpoint: provider.spec.endpoint.clone(),
        credentials,
        insecure: insecure(provider),
        placement: Placement {
            datacenter: defaults.text("datacenter")?,
            cluster: defaults.text("cluster")?,
            host: defaults.text("host")?,
            resource_pool: defaults.text("resourcePool")?,
            folder: defaults.text("folder")?,
            datastore: default_storage(provider),
            network: network(provider),
        },
    })
}

/// `spec.defaults.network`.
pub(super) fn network(provider: &Provider) -> Option<String> {
    provider
        .spec
        .defaults
        .as_ref()
        .and_then(|defaults| defaults.network.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::provider;
    use super::*;

    #[test]
    fn placement_is_what_the_defaults_say() {
        let spec = "{type: vsphere, endpoint: vc, insecureSkipVerify: true, defaults: {datastore: ssd, network: n, \
                    datacenter: dc, cluster: c, host: h, resourcePool: rp, folder: f}}";
        let config = config(&provider(spec), Credentials::default()).unwrap();
        assert!(config.insecure);
        let text = |text: &str| Some(text.to_owned());
        let expected = Placement {
            datacenter: text("dc"),
            cluster: text("c"),
            host: text("h"),
            resource_pool: text("rp"),
            folder: text("f"),
            datastore: text("ssd"),
            network: text("n"),
        };
        assert_eq!(config.placement, expected);
    }

    #[test]
    fn a_field_of_the_wrong_kind_is_named() {
        let provider = provider("{type: vsphere, endpoint: vc, defaults: {cluster: 7}}");
        let error = config(&provider, Credentials::default()).unwrap_err().to_string();
        assert!(
            error.contains("spec.defaults.cluster is 7") && error.contains("a text"),
            "{error}"
        );
    }
}
