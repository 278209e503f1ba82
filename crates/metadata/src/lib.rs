//! What a guest learns about itself: an instance metadata service like EC2's, version 2 only (spec section 23), and the
//! way to the AWS APIs for a guest with a role.
//!
//! The host serves each guest on listeners in that guest's own network namespace, so that a guest can ask for nobody
//! else. It is hostile all the same: sizes, times and connections are bounded.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `credentials` | the [`CredentialIssuer`] that others provide, and a guest's current credentials |
//! | `token` | the tokens that every question needs |
//! | `tree` | the names and what stands there |
//! | `server` | HTTP |
//! | `relay` | connections to the APIs |
#![forbid(unsafe_code)]

mod credentials;
mod relay;
mod server;
mod token;
mod tree;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};

pub use credentials::{CredentialIssuer, Credentials, IssueError};

/// Who a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The MicroVM's id, or the build's: the session name of its role, and what its metadata tokens are bound to.
    pub id: String,
    /// The region it was launched in.
    pub region: String,
    /// Its role; without one there are no credentials and no way to the APIs.
    pub role_arn: Option<String>,
}

/// The AWS APIs, as guests reach them.
#[derive(Debug, Clone)]
pub struct ApiAccess {
    /// The control listener.
    pub address: SocketAddr,
    /// Its URL inside a guest.
    pub url: String,
    /// The certificate that signed its own.
    pub ca_pem: String,
}

/// A guest's listeners, in its namespace.
#[derive(Debug)]
pub struct Listeners {
    /// At the metadata address.
    pub metadata: TcpListener,
    /// At the APIs' address.
    pub api: Option<TcpListener>,
}

/// What a guest says to be let alone for a while, although nothing moves at its endpoint.
pub trait Lease: Send + Sync + 'static {
    /// From now on for `time`, instead of what was taken before; no time gives it back.
    fn take(&self, time: Duration);
    /// How long it still lasts.
    fn left(&self) -> Duration;
}

/// The metadata service of a node. Cheap to clone.
#[derive(Clone)]
pub struct Metadata(Arc<Inner>);

struct Inner {
    tokens: token::Tokens,
    issuer: Arc<dyn CredentialIssuer>,
    api: ApiAccess,
    relayed: Arc<Semaphore>,
}

/// A guest's service, which ends when this is dropped.
#[derive(Debug)]
pub struct Serving(Vec<AbortHandle>);

impl Metadata {
    /// `secret` binds tokens to their guest; kept over restarts, tokens stay good.
    pub fn new(secret: &[u8], issuer: Arc<dyn CredentialIssuer>, api: ApiAccess) -> Metadata {
        Metadata(Arc::new(Inner {
            tokens: token::Tokens::new(secret),
            issuer,
            api,
            relayed: Arc::new(Semaphore::new(relay::ALL_CONNECTIONS)),
        }))
    }

    /// Serves one guest. Credentials are issued when it first asks for them. Where leases do not count there is none.
    pub fn serve(&self, listeners: Listeners, subject: Subject, lease: Option<Arc<dyn Lease>>) -> Serving {
        let mut tasks = Vec::new();
        if let Some(listener) = listeners.api.filter(|_| subject.role_arn.is_some()) {
            let relay = relay::serve(listener, self.0.api.address, self.0.relayed.clone());
            tasks.push(tokio::spawn(relay).abort_handle());
        }
        let guest = Arc::new(server::Guest {
            node: self.0.clone(),
            current: credentials::Current::default(),
            subject,
            lease,
        });
        tasks.push(tokio::spawn(server::serve(listeners.metadata, guest)).abort_handle());
        Serving(tasks)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}
