//! Plain HTTP for what no SDK covers: endpoints of MicroVMs, logs, hearth's own calls.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};
use std::vec;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// An HTTP client that trusts what the settings say.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
}

impl Http {
    /// `ca`: PEM file of the authorities to trust, the system's when None. `connect_to`: the address
    /// behind every host name; names are resolved as usual when None.
    pub(crate) fn new(ca: Option<&Path>, connect_to: Option<SocketAddr>) -> Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { connect_to });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(https),
        })
    }

    /// Sends one request; the body of the answer is still to be read.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let uri = request.uri().clone();
        self.client.request(request).await.map_err(|error| {
            let scheme = uri.scheme_str().unwrap_or("https");
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            Error::from_transport(&error, &format!("{scheme}://{authority}"))
        })
    }
}

/// TLS that trusts `ca`, or the system when None.
pub(crate) fn tls_config(ca: Option<&Path>) -> Result<ClientConfig> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed(format!("cannot set up TLS: {error}"), ""))?;
    let Some(ca) = ca else {
        let builder = builder
            .with_native_roots()
            .map_err(Error::file("the system's certificate authorities"))?;
        return Ok(builder.with_no_client_auth());
    };
    let pem = std::fs::read(ca).map_err(Error::file(ca))?;
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold certificates that rustls does not take; the others still count.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(std::result::Result::ok));
    if roots.is_empty() {
        let cure = "Name a PEM file of certificate authorities in AWS_CA_BUNDLE";
        return Err(Error::failed(
            format!("{} holds no certificate", ca.display()),
            cure,
        ));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves every name to one address, or by the system's resolver.
#[derive(Clone)]
struct Resolver {
    connect_to: Option<SocketAddr>,
}

impl tower::Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let connect_to = self.connect_to;
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = match connect_to {
                Some(address) => vec![address],
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(addresses.into_iter())
        })
    }
}
