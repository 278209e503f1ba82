//! What the gateway remembers of a MicroVM from one request to the next, over every suspend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gate::MicroVms;
use crate::limits::Usage;
use crate::metrics::{Metrics, Series};

/// One MicroVM's usage and measurements.
pub(crate) struct EndpointState {
    pub(crate) microvm_id: String,
    endpoint_id: String,
    pub(crate) usage: Usage,
    pub(crate) series: Series,
    metrics: Metrics,
}

impl Drop for EndpointState {
    fn drop(&mut self) {
        self.metrics.forget(&self.microvm_id);
    }
}

/// The state of every endpoint that was asked for.
pub(crate) struct EndpointStates {
    states: Mutex<HashMap<String, Arc<EndpointState>>>,
    pub(crate) metrics: Metrics,
}

impl EndpointStates {
    pub(crate) fn new(metrics: Metrics) -> EndpointStates {
        EndpointStates {
            states: Mutex::default(),
            metrics,
        }
    }

    /// The state of a MicroVM, made at the first good request.
    pub(crate) fn of(&self, microvm_id: &str, endpoint_id: &str) -> Arc<EndpointState> {
        let mut states = self.lock();
        if let Some(state) = states.get(microvm_id) {
            return state.clone();
        }
        let state = Arc::new(EndpointState {
            microvm_id: microvm_id.to_owned(),
            endpoint_id: endpoint_id.to_owned(),
            usage: Usage::new(),
            series: self.metrics.series(microvm_id),
            metrics: self.metrics.clone(),
        });
        states.insert(microvm_id.to_owned(), state.clone());
        state
    }

    /// Forgets MicroVMs that are gone and that nothing is under way to.
    pub(crate) fn sweep(&self, microvms: &dyn MicroVms) {
        self.lock()
            .retain(|_, state| Arc::strong_count(state) > 1 || microvms.find(&state.endpoint_id).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<EndpointState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
