//! The way to the authority: HTTPS only, bounded in time and size.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Limited;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::time::timeout;

use crate::AcmeError;

/// Longest wait for an answer's header.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer: certificate chains are a few thousand.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct Client(Pool<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Client {
    /// Trusts these certificates, or the machine's.
    pub(crate) fn new(roots_pem: Option<&[u8]>) -> Result<Client, AcmeError> {
        let wrong = |error: &dyn std::fmt::Display| AcmeError::Roots(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        let builder = match roots_pem {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| wrong(&error))?;
                    roots.add(certificate).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"there is none in the file"));
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_native_roots().map_err(|error| wrong(&error))?,
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(builder.with_no_client_auth())
            .https_only()
            .enable_http1()
            .build();
        Ok(Client(Pool::builder(TokioExecutor::new()).build(connector)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = timeout(PATIENCE, self.0.request(request));
        Box::pin(async move {
            let late = io::Error::new(io::ErrorKind::TimedOut, "no answer");
            let answer = answer.await.map_err(|_| Error::Other(late.into()))?;
            let answer = answer.map_err(|error| Error::Other(error.into()))?;
            Ok(answer.map(|body| Limited::new(body, MAX_ANSWER_BYTES)).into())
        })
    }
}
