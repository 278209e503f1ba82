use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::limits::Limits;

/// Why the gate of a MicroVM stays shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It is not running and will not be woken, or could not be: 502.
    #[error("the MicroVM does not serve requests now")]
    Closed,
    /// It was launched without HTTP ingress: 403.
    #[error("the MicroVM has no HTTP ingress")]
    NoIngress,
    /// Too many requests wait for it already: 429.
    #[error("too many requests for the MicroVM")]
    Busy,
}

/// What the gateway knows of a MicroVM before it asks for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose endpoint it is.
    pub microvm_id: String,
    /// What its size carries.
    pub limits: Limits,
}

/// What the gateway knows of the MicroVMs.
#[async_trait]
pub trait MicroVms: Send + Sync + 'static {
    /// The MicroVM whose endpoint's first label this is (lower case). Asked for every request: must be cheap and must
    /// not wake anything.
    fn find(&self, endpoint_id: &str) -> Option<Endpoint>;

    /// Waits at the gate until the MicroVM may be spoken to; wakes it when its idle policy says so. Called once for
    /// every request, after its token and port were found good. The wait is dropped when the client leaves.
    async fn enter(&self, microvm_id: &str) -> Result<Box<dyn Passage>, GateError>;

    /// The port of an endpoint that a request without a token may go to, which asks for this one or leaves it open.
    /// `None`: it needs a token.
    fn public_port(&self, endpoint_id: &str, asked: Option<u16>) -> Option<u16>;

    /// As [`MicroVms::enter`], for a request with a shell token or to a public port: what the MicroVM's HTTP ingress says
    /// does not matter.
    async fn enter_shell(&self, microvm_id: &str) -> Result<Box<dyn Passage>, GateError>;
}

/// The way into a MicroVM that may be spoken to. Holding one means nothing by itself: the gateway keeps a passage as
/// long as it keeps connections made through it.
#[async_trait]
pub trait Passage: Send + Sync + 'static {
    /// Grows with every resume. Connections made through a passage of another generation are never used again.
    fn generation(&self) -> u64;

    /// Connects to a port of the application. A refused connection means that nothing listens there.
    async fn dial(&self, port: u16) -> io::Result<TcpStream>;

    /// Connects to the agent in the guest, for one request of its protocol.
    async fn connect_agent(&self) -> io::Result<TcpStream>;

    /// Returns once connections of this generation are dead: the MicroVM is suspended or ended. The gateway then
    /// cuts every stream that still runs through it.
    async fn ended(&self);

    /// A request or bytes of a body or upgraded connection passed. Called for every piece: must be cheap.
    fn touch(&self);

    /// Bytes of bodies or upgraded connections passed, for the meters. Called for every piece: must be cheap.
    fn moved(&self, _to_application: u64, _from_application: u64) {}

    /// A request was sent on and has no response headers yet: it counts as activity until [`Passage::request_ended`]
    /// (spec section 16).
    fn request_began(&self);

    /// The response headers came, or the request was given up.
    fn request_ended(&self);

    /// It is open until [`Passage::detached`], whether anything moves or not.
    fn attached(&self, what: Attachment);

    /// It is closed.
    fn detached(&self, what: Attachment);
}

/// What a client keeps open at a MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A shell.
    Shell,
    /// A command.
    Command,
    /// A response, upgraded connection or tunnel of the application's, or a file on its way.
    Stream,
}

/// Keeps something counted as open until it is dropped.
pub(crate) struct Attached(Arc<dyn Passage>, Attachment);

impl Attached {
    pub(crate) fn begin(passage: Arc<dyn Passage>, what: Attachment) -> Attached {
        passage.attached(what);
        Attached(passage, what)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.detached(self.1);
    }
}

/// Keeps a request counted as pending until it is dropped.
pub(crate) struct Pending(Arc<dyn Passage>);

impl Pending {
    pub(crate) fn begin(passage: Arc<dyn Passage>) -> Pending {
        passage.request_began();
        Pending(passage)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}
