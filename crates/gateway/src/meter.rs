//! What passes through a shell, a command or a file counts as every other byte of the endpoint does.

use std::sync::Arc;

use crate::exchange::Exchange;
use crate::gate::Passage;
use crate::limits::Direction;

/// Counts for one request of the platform's own services.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) passage: Arc<dyn Passage>,
    pub(super) exchange: Arc<Exchange>,
}

impl Meter {
    /// Bytes came from the client.
    pub(super) fn up(&self, bytes: usize) {
        self.passage.touch();
        self.passage.moved(bytes as u64, 0);
        self.exchange.passed(Direction::Up, bytes);
    }

    /// Bytes go to the client.
    pub(super) fn down(&self, bytes: usize) {
        self.passage.touch();
        self.passage.moved(0, bytes as u64);
        self.exchange.passed(Direction::Down, bytes);
    }
}
