//! Signatures: AWS Signature Version 4, as object_store makes them.

use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::signer::Signer as _;
use reqwest::{Request, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::settings::Settings;
use crate::web::Trouble;
use crate::{Kind, ObjectKey};

/// What a signature says of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// Nothing.
    Unsigned,
    /// That it has this SHA-256.
    Digest([u8; 32]),
}

/// Signs requests with the credentials of one store.
#[derive(Debug)]
pub(super) struct Signer {
    credential: AwsCredential,
    region: String,
}

impl Signer {
    pub(super) fn new(settings: &Settings, region: &str) -> Self {
        let token = settings.session_token.as_ref();
        Self {
            credential: AwsCredential {
                key_id: settings.access_key.clone(),
                secret_key: settings.secret_key.expose_secret().to_owned(),
                token: token.map(|token| token.expose_secret().to_owned()),
            },
            region: region.to_owned(),
        }
    }

    /// Signs a request: URL, headers, and what is said of its body.
    pub(super) fn sign(&self, request: &mut Request, payload: Payload) -> Result<(), Trouble> {
        let unsignable = |error: String| Trouble::new(Kind::Bug, format!("the request cannot be signed: {error}"));
        let mut stand_in: HttpRequest = http::Request::builder()
            .method(request.method().clone())
            .uri(request.url().as_str())
            .body(HttpRequestBody::empty())
            .map_err(|error| unsignable(error.to_string()))?;
        *stand_in.headers_mut() = std::mem::take(request.headers_mut());
        let authorizer = AwsAuthorizer::new(&self.credential, "s3", &self.region);
        let signed = match payload {
            Payload::Unsigned => authorizer.with_sign_payload(false).try_authorize(&mut stand_in, None),
            Payload::Digest(digest) => authorizer.try_authorize(&mut stand_in, Some(&digest)),
        };
        *request.headers_mut() = std::mem::take(stand_in.headers_mut());
        for secret in ["authorization", "x-amz-security-token"] {
            if let Some(value) = request.headers_mut().get_mut(secret) {
                value.set_sensitive(true);
            }
        }
        signed.map_err(|error| unsignable(error.to_string()))
    }

    /// A URL that reads the object at `key` below `bucket_url` for as long as it is `valid`, at most a week.
    pub(super) async fn presign(
        &self,
        bucket_url: &Url,
        key: &ObjectKey,
        valid: Duration,
    ) -> Result<SecretString, Trouble> {
        let unsignable = |error: object_store::Error| Trouble::new(Kind::Bug, format!("no URL can be signed: {error}"));
        let credential = &self.credential;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            // So the endpoint is taken as the bucket's own, as it is.
            .with_virtual_hosted_style_request(true)
            .with_endpoint(bucket_url.as_str().trim_end_matches('/'))
            .with_allow_http(true)
            .with_region(&self.region)
            .with_access_key_id(&credential.key_id)
            .with_secret_access_key(&credential.secret_key);
        if let Some(token) = &credential.token {
            builder = builder.with_token(token);
        }
        let path = object_store::path::Path::from(key.as_str());
        let store = builder.build().map_err(unsignable)?;
        let url = store.signed_url(http::Method::GET, &path, valid.min(LONGEST)).await;
        Ok(String::from(url.map_err(unsignable)?).into())
    }
}

/// The longest time for which a URL can be signed. AWS S3, "Signature calculations: query parameters".
const LONGEST: Duration = Duration::from_hours(7 * 24);
