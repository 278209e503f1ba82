//! Artifacts from an S3 service that somebody else runs.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, io, path::Path};

use aws_sdk_s3::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use hearth_wire::Sensitive;
use tokio::io::AsyncWriteExt;

/// Which service, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    /// Its URL.
    pub endpoint: String,
    /// The region of its buckets.
    pub region: String,
    /// Keys for every role that has none of its own.
    pub keys: Keys,
    /// Keys of single roles, by ARN.
    pub role_keys: BTreeMap<String, Keys>,
    /// The certificates it is trusted by, in PEM; those of the machine when absent.
    pub ca_pem: Option<Vec<u8>>,
}

/// An access key of that service.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Sensitive,
    /// Of temporary keys; else empty.
    pub session_token: Sensitive,
}

/// Why an object did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The service's refusal, as a build's failure code (spec section 7.1) and for people.
    #[error("{cause}")]
    Refused {
        /// Such as `S3_NO_SUCH_KEY`.
        code: &'static str,
        /// What the service said.
        cause: String,
    },
    /// It has more bytes than are of use.
    #[error("it is too large")]
    TooLarge,
    /// It could not be written here.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExternalS3 {
    client: Client,
    role_keys: BTreeMap<String, Keys>,
}

impl ExternalS3 {
    /// Says nothing to the service yet.
    pub fn new(config: ExternalConfig) -> io::Result<ExternalS3> {
        let trust = match config.ca_pem {
            Some(pem) => TrustStore::empty().with_pem_certificate(pem),
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(io::Error::other)?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let config_of_client = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(config.endpoint)
            .region(Region::new(config.region))
            .credentials_provider(credentials(&config.keys))
            .force_path_style(true)
            .build();
        Ok(ExternalS3 {
            client: Client::from_conf(config_of_client),
            role_keys: config.role_keys,
        })
    }

    /// Whether the service itself decides what this role may read: it has keys of its own there.
    pub fn knows(&self, role_arn: &str) -> bool {
        self.role_keys.contains_key(role_arn)
    }

    /// Copies an object of at most `most` bytes into a new file, as a role or as the node itself. Gives its length.
    pub async fn fetch(
        &self,
        role_arn: Option<&str>,
        bucket: &str,
        key: &str,
        to: &Path,
        most: u64,
    ) -> Result<u64, FetchError> {
        let request = self.client.get_object().bucket(bucket).key(key);
        let answer = match role_arn.and_then(|role| self.role_keys.get(role)) {
            Some(keys) => {
                let own = Config::builder().credentials_provider(credentials(keys));
                request.customize().config_override(own).send().await
            }
            None => request.send().await,
        };
        let mut object = answer.map_err(refused)?;
        let mut file = tokio::fs::File::create_new(to).await?;
        let mut length = 0;
        while let Some(bytes) = object.body.try_next().await.map_err(io::Error::other)? {
            length += bytes.len() as u64;
            if length > most {
                return Err(FetchError::TooLarge);
            }
            file.write_all(&bytes).await?;
        }
        file.flush().await?;
        Ok(length)
    }
}

fn credentials(keys: &Keys) -> Credentials {
    let token = Some(keys.session_token.0.clone()).filter(|token| !token.is_empty());
    Credentials::new(
        &keys.access_key_id,
        keys.secret_access_key.0.clone(),
        token,
        None,
        "hearthd.toml",
    )
}

fn refused<E, R>(error: SdkError<E, R>) -> FetchError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let code = match error.code() {
        Some("NoSuchBucket" | "InvalidBucketName") => "S3_NO_SUCH_BUCKET",
        Some("NoSuchKey" | "NotFound" | "KeyTooLongError") => "S3_NO_SUCH_KEY",
        Some(
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "AllAccessDisabled",
        ) => "S3_ACCESS_DENIED",
        Some("InvalidObjectState") => "S3_INVALID_OBJECT",
        Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            "S3_CROSS_REGION_ACCESS_DENIED"
        }
        _ => "INTERNAL_PLATFORM_ERROR",
    };
    let cause = match error.message() {
        Some(message) => message.to_owned(),
        None => DisplayErrorContext(&error).to_string(),
    };
    FetchError::Refused { code, cause }
}
