//! One client's connection, and the places it takes at the endpoints it speaks to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_crowd::Member;

use crate::endpoint::EndpointState;
use crate::limits::Limits;

/// A client's TLS connection. It counts at every endpoint it has spoken to with a good token, until it is closed; what
/// it was upgraded to holds it as well.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) server_name: Option<String>,
    known: Mutex<Known>,
}

struct Known {
    /// Where it has a place. Most connections speak to one endpoint all their life.
    places: Vec<Arc<EndpointState>>,
    /// Until it has one.
    stranger: Option<Arc<Member>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, server_name: Option<String>, stranger: Arc<Member>) -> Client {
        let known = Known {
            places: Vec::new(),
            stranger: Some(stranger),
        };
        Client {
            address,
            server_name,
            known: Mutex::new(known),
        }
    }

    /// Takes a place at the endpoint unless it has one; false when all are taken.
    pub(crate) fn join(&self, endpoint: &Arc<EndpointState>, limits: Limits) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.places.iter().any(|place| Arc::ptr_eq(place, endpoint)) {
            return true;
        }
        let joined = endpoint.usage.join(limits);
        if joined {
            endpoint.series.connections.inc();
            known.places.push(endpoint.clone());
            known.stranger = None;
        }
        joined
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        for place in &known.places {
            place.usage.leave();
            place.series.connections.dec();
        }
    }
}
