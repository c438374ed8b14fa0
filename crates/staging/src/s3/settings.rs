//! What a user says of a store: the manifest's fields and the Secret's keys.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::{Error, HostPolicy, Kind};

/// How a store is reached.
///
/// `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bucket's name.
    pub bucket: String,
    /// The region; where `None`, the one in an endpoint of AWS, or `us-east-1`.
    pub region: Option<String>,
    /// The server: `host`, `host:port` or an `http://` or `https://` URL, which may have a path; AWS where `None`.
    pub endpoint: Option<String>,
    /// The id of the access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: SecretString,
    /// The token that belongs to temporary credentials.
    pub session_token: Option<SecretString>,
    /// Authorities that are trusted besides the machine's, as PEM.
    pub ca: Option<String>,
    /// Which hosts may be talked to.
    pub hosts: HostPolicy,
    /// How long nothing may move on a connection; a minute where `None`.
    pub silence: Option<Duration>,
}

/// The fields of `spec.storage`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spec<'a> {
    /// `bucket`, which is required.
    pub bucket: Option<&'a str>,
    /// `region`.
    pub region: Option<&'a str>,
    /// `endpoint`.
    pub endpoint: Option<&'a str>,
}

impl Settings {
    /// Settings from the manifest's fields and a Secret: `secret` gives the text of a key, if the Secret has it.
    ///
    /// The keys are `accessKey` (or `accessKeyID`), `secretKey` (or `secretAccessKey`), `sessionToken`, `region`, `endpoint`
    /// and `ca.crt`. The manifest's `region` and `endpoint` win over the Secret's. White space around a value, which is easily
    /// pasted, does not count.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where a bucket or a key is missing or cannot be one.
    pub fn from_secret(
        spec: Spec<'_>,
        secret: impl Fn(&str) -> Option<String>,
        hosts: HostPolicy,
    ) -> Result<Self, Error> {
        let given = |value: Option<String>| value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let bucket = given(spec.bucket.map(str::to_owned)).ok_or_else(|| {
            Error::new(Kind::Invalid, "use", "S3 storage")
                .detail("no bucket is given")
                .remedy("set spec.storage.bucket")
        })?;
        let one_of = |names: [&'static str; 2]| {
            let value = names.into_iter().find_map(|name| given(secret(name)));
            value.ok_or_else(|| missing(&bucket, names))
        };
        let settings = Self {
            access_key: one_of(["accessKey", "accessKeyID"])?,
            secret_key: one_of(["secretKey", "secretAccessKey"])?.into(),
            session_token: given(secret("sessionToken")).map(SecretString::from),
            region: given(spec.region.map(str::to_owned)).or_else(|| given(secret("region"))),
            endpoint: given(spec.endpoint.map(str::to_owned)).or_else(|| given(secret("endpoint"))),
            ca: given(secret("ca.crt")),
            hosts,
            silence: None,
            bucket,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Whether the credentials can be put into a header.
    pub(super) fn check(&self) -> Result<(), Error> {
        let token = self.session_token.as_ref().map_or("", |token| token.expose_secret());
        for (name, value) in [
            ("accessKey", self.access_key.as_str()),
            ("secretKey", self.secret_key.expose_secret()),
            ("sessionToken", token),
        ] {
            let required = name != "sessionToken";
            if value.chars().any(|c| !c.is_ascii_graphic()) || (required && value.is_empty()) {
                return Err(Error::new(Kind::Invalid, "use", format!("S3 bucket {}", self.bucket))
                    .detail(format!("{name} is empty, or has characters that no such key has"))
                    .remedy("check the Secret: its values are the plain keys, encoded once"));
            }
        }
        Ok(())
    }
}

fn missing(bucket: &str, names: [&str; 2]) -> Error {
    let [name, other] = names;
    Error::new(Kind::Invalid, "use", format!("S3 bucket {bucket}"))
        .detail(format!("the Secret has neither {name} nor {other}"))
        .remedy("let spec.storage.credentialsSecretRef name a Secret with accessKey and secretKey")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(spec: Spec<'_>, secret: &[(&str, &str)]) -> Result<Settings, Error> {
        let secret: BTreeMap<_, _> = secret.iter().copied().collect();
        Settings::from_secret(
            spec,
            |key| secret.get(key).map(|value| (*value).to_owned()),
            HostPolicy::default(),
        )
    }

    const SPEC: Spec<'_> = Spec {
        bucket: Some("vms"),
        region: None,
        endpoint: None,
    };

    #[test]
    fn both_spellings_are_read_and_the_manifest_wins() {
        let secret = [
            ("accessKeyID", " AK\n"),
            ("secretAccessKey", "hunter2\n"),
            ("sessionToken", "tok3n"),
            ("region", "eu-west-1"),
            ("endpoint", "s3.example.com"),
            ("ca.crt", "PEM"),
        ];
        let settings = read(SPEC, &secret).unwrap();
        assert_eq!(settings.access_key, "AK");
        assert_eq!(settings.secret_key.expose_secret(), "hunter2");
        assert_eq!(settings.region.as_deref(), Some("eu-west-1"));
        assert_eq!(settings.endpoint.as_deref(), Some("s3.example.com"));
        assert_eq!(settings.ca.as_deref(), Some("PEM"));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("tok3n"), "{shown}");
        let spec = Spec {
            region: Some("us-west-2"),
            endpoint: Some("other.example.com"),
            ..SPEC
        };
        let settings = read(spec, &secret).unwrap();
        assert_eq!(settings.region.as_deref(), Some("us-west-2"));
        assert_eq!(settings.endpoint.as_deref(), Some("other.example.com"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (spec, secret, word) in [
            (
                Spec::default(),
                &[("accessKey", "a"), ("secretKey", "s")][..],
                "spec.storage.bucket",
            ),
            (SPEC, &[], "accessKey"),
            (SPEC, &[("accessKey", "a")], "secretKey"),
            (SPEC, &[("accessKey", "a"), ("secretKey", " ")], "secretKey"),
            (SPEC, &[("accessKey", "a b"), ("secretKey", "s")], "accessKey"),
            (
                SPEC,
                &[("accessKey", "a"), ("secretKey", "s"), ("sessionToken", "x\ny")],
                "sessionToken",
            ),
        ] {
            let error = read(spec, secret).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
