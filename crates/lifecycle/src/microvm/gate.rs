//! The gate: open while the MicroVM runs, held while it wakes, shut otherwise.

use std::{io, time::Duration};

use hearth_wire::arn::ManagedConnector;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{
    activity::Attachment,
    policy::{Decision, Request, decide},
    shared::{Message, Microvm, Open},
};

/// Longest time a request is held: a resume with the longest hook.
const LONGEST_HOLD: Duration = Duration::from_secs(90);

/// Why a request does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It cannot be reached now.
    #[error("the MicroVM cannot be reached")]
    Closed,
    /// It was launched without HTTP ingress.
    #[error("the MicroVM takes no HTTP requests")]
    NoIngress,
    /// Too many requests wait already.
    #[error("too many requests wait for the MicroVM")]
    Busy,
}

/// The way in, for one request.
#[derive(Debug, Clone)]
pub struct Passage {
    microvm: Microvm,
    open: Open,
}

/// Waits at the gate.
pub(crate) async fn enter(microvm: &Microvm) -> Result<Passage, GateError> {
    if !takes_http(&microvm.record.borrow().ingress) {
        return Err(GateError::NoIngress);
    }
    enter_shell(microvm).await
}

/// Waits at the gate on behalf of a shell token, which the MicroVM's ingress was asked for when it was made.
pub(crate) async fn enter_shell(microvm: &Microvm) -> Result<Passage, GateError> {
    enter_within(microvm, LONGEST_HOLD).await
}

async fn enter_within(microvm: &Microvm, hold: Duration) -> Result<Passage, GateError> {
    let open = microvm.open.borrow().clone();
    let open = match open {
        Some(open) => open,
        None if is_refused(microvm) => return Err(GateError::Closed),
        None => wait(microvm, hold).await?,
    };
    Ok(Passage {
        microvm: microvm.clone(),
        open,
    })
}

/// Whether the gate stays shut whatever one waits for. A task that launches a MicroVM would answer only when it has: by
/// then the request would be let in, although it came before `/run` had answered (spec section 13.3).
fn is_refused(microvm: &Microvm) -> bool {
    let record = microvm.record.borrow();
    let decision = decide(record.stage, Request::Enter, record.idle_policy.as_ref());
    matches!(decision, Decision::Refuse(_))
}

async fn wait(microvm: &Microvm, hold: Duration) -> Result<Open, GateError> {
    let _place = microvm.waiting.try_acquire().map_err(|_| GateError::Busy)?;
    let (reply, answer) = oneshot::channel();
    match microvm.mailbox.try_send(Message::Enter(reply)) {
        Ok(()) => {}
        Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => return Err(GateError::Busy),
        Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return Err(GateError::Closed),
    }
    match timeout(hold, answer).await {
        Ok(Ok(answer)) => answer,
        _ => Err(GateError::Closed),
    }
}

fn takes_http(ingress: &[String]) -> bool {
    let http = [ManagedConnector::HttpIngress, ManagedConnector::AllIngress];
    ingress.iter().any(|arn| {
        http.iter()
            .any(|connector| arn.ends_with(&format!(":{}", connector.name())))
    })
}

impl Passage {
    /// A connection to 127.0.0.1:`port` in the guest.
    pub async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        self.open.agent.forward(port).await
    }

    /// A connection to the agent in the guest.
    pub async fn connect_agent(&self) -> io::Result<TcpStream> {
        self.open.agent.connect().await
    }

    /// Bytes moved.
    pub fn touch(&self) {
        self.microvm.traffic.touch();
    }

    /// Counts bytes to and from the application.
    pub fn count(&self, received: u64, sent: u64) {
        self.microvm.traffic.count(received, sent);
    }

    /// A request was sent in; it counts as traffic until [`Passage::end`].
    pub fn begin(&self) {
        self.microvm.traffic.begin();
    }

    /// Its response has begun, or it is given up.
    pub fn end(&self) {
        self.microvm.traffic.end();
    }

    /// It is open until [`Passage::detach`].
    pub fn attach(&self, what: Attachment) {
        self.microvm.traffic.attach(what);
    }

    /// It is closed.
    pub fn detach(&self, what: Attachment) {
        self.microvm.traffic.detach(what);
    }

    /// Returns when connections of this passage are dead: the MicroVM was suspended or has ended.
    pub async fn ended(&self) {
        let mut open = self.microvm.open.clone();
        let same = |open: &Option<Open>| {
            open.as_ref()
                .is_some_and(|open| open.generation == self.open.generation)
        };
        let _gone_or_other = open.wait_for(|open| !same(open)).await;
    }

    /// Counts restores: connections made in an earlier one are dead.
    pub fn generation(&self) -> u64 {
        self.open.generation
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::mpsc;

    use super::*;
    use crate::microvm::{record::MicrovmRecord, shared::MOST_WAITING};

    /// A suspended MicroVM that wakes on requests, and its mailbox, which nobody reads.
    fn suspended() -> (Microvm, mpsc::Receiver<Message>) {
        let record: MicrovmRecord = serde_json::from_value(serde_json::json!({
            "id": "microvm-1", "account": "1", "region": "r", "endpointId": "e", "endpoint": "e",
            "imageId": "i", "imageArn": "i", "imageVersion": "1.0", "memoryMib": 512,
            "stage": "SUSPENDED", "maximumDurationSeconds": 3600,
            "idlePolicy": {
                "maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 60, "autoResumeEnabled": true,
            },
            "ingress": [":aws:network-connector:aws-network-connector:ALL_INGRESS"], "egress": [],
            "startedAt": 0, "suspends": 1, "outputPosition": 0,
        }))
        .expect("a record");
        let (mailbox, unread) = mpsc::channel(2 * MOST_WAITING);
        let microvm = Microvm {
            mailbox,
            ..Microvm::at_rest(record)
        };
        (microvm, unread)
    }

    #[tokio::test]
    async fn requests_wait_in_order_a_bounded_number_for_a_bounded_time() {
        let (microvm, mut mailbox) = suspended();
        let hold = Duration::from_secs(1);
        let wait = |_| {
            let microvm = microvm.clone();
            tokio::spawn(async move { enter_within(&microvm, hold).await.map(drop) })
        };
        let wait_and_look = |_| {
            let (held, began) = (wait(0), Instant::now());
            tokio::spawn(async move { (held.await.expect("no panic"), began.elapsed()) })
        };
        let waiting: Vec<_> = (0..MOST_WAITING).map(wait_and_look).collect();
        tokio::task::yield_now().await;
        assert_eq!(wait(0).await.expect("no panic"), Err(GateError::Busy));
        assert!(
            waiting.iter().all(|held| !held.is_finished()),
            "one too many is told so at once"
        );
        for held in waiting {
            let (answer, waited) = held.await.expect("no panic");
            assert_eq!(answer, Err(GateError::Closed));
            assert!(waited >= hold, "let go after {waited:?}");
        }

        // Their places are free again, and the one who came first is let in first.
        while mailbox.try_recv().is_ok() {}
        let (first, second) = (wait(0), wait(1));
        tokio::task::yield_now().await;
        for (held, answer) in [(first, GateError::NoIngress), (second, GateError::Closed)] {
            let Some(Message::Enter(reply)) = mailbox.recv().await else {
                panic!("a request was expected");
            };
            reply.send(Err(answer)).expect("it waits");
            assert_eq!(held.await.expect("no panic"), Err(answer));
        }
    }
}
