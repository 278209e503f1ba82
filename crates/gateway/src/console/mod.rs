//! What a shell token opens: a shell on any path (spec section 21), and two services of our own below
//! `/hearth/v1/`, which give nothing that a root shell does not give: commands ([`exec`]) and files ([`files`]).
//!
//! The platform itself answers here; the application sees nothing of it. A suspend or the end of the MicroVM cuts
//! whatever is open, and the agent in the guest ends what ran on it.

mod agent;
mod exec;
mod files;
mod session;
mod shell;
mod websocket;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::ResponseBody;
use crate::exchange::Exchange;
use crate::gate::{Attachment, Passage, Pending};
use crate::meter::Meter;
use crate::respond::Refusal;
use crate::subprotocol::Offer;
use crate::upgrade::Upgrade;

const EXEC_PATH: &str = "/hearth/v1/exec";
const FILES_PATH: &str = "/hearth/v1/files";

/// What a request with a shell token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// WebSocket.
    Shell,
    /// WebSocket.
    Exec,
    /// Plain HTTP.
    Files,
}

impl Service {
    /// Decided before the gate, so that what leads nowhere wakes nothing.
    pub(crate) fn of<B>(request: &Request<B>, websocket: bool) -> Result<Service, Refusal> {
        match request.uri().path() {
            EXEC_PATH if websocket => Ok(Service::Exec),
            EXEC_PATH => Err(Refusal::InvalidRequest),
            FILES_PATH if !websocket => Ok(Service::Files),
            _ if websocket => Ok(Service::Shell),
            _ => Err(Refusal::BadGateway),
        }
    }

    /// What it is while it is open.
    pub(crate) fn attachment(self) -> Attachment {
        match self {
            Service::Shell => Attachment::Shell,
            Service::Exec => Attachment::Command,
            Service::Files => Attachment::Stream,
        }
    }
}

/// A request that has passed the gate.
pub(crate) struct Visit {
    pub(crate) service: Service,
    pub(crate) request: Request<Incoming>,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) offer: Option<Offer>,
    pub(crate) passage: Arc<dyn Passage>,
    /// Goes on as long as the session does.
    pub(crate) exchange: Arc<Exchange>,
}

impl Visit {
    /// Answers it; what goes on after the answer runs in `tasks` until `cut`.
    pub(crate) async fn answer(
        self,
        tasks: &TaskTracker,
        cut: &CancellationToken,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let meter = Meter {
            passage: self.passage,
            exchange: self.exchange,
        };
        if self.service == Service::Files {
            let _pending = Pending::begin(meter.passage.clone());
            return files::answer(self.request, meter).await;
        }
        let upgrade = self.upgrade.ok_or(Refusal::InvalidRequest)?;
        let (response, socket) = websocket::accept(&self.request, upgrade, self.offer)?;
        let (service, cut) = (self.service, cut.clone());
        tasks.spawn(async move {
            let session = async {
                let Some(socket) = socket.await else { return };
                match service {
                    Service::Exec => exec::run(socket, &meter).await,
                    _ => shell::run(socket, &meter).await,
                }
            };
            tokio::select! {
                () = session => {}
                () = cut.cancelled() => {}
                () = meter.passage.ended() => {}
            }
        });
        Ok(response)
    }
}
