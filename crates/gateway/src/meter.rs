//! What every byte of an endpoint counts for, whatever it belongs to.

use std::future::poll_fn;
use std::sync::Arc;

use crate::exchange::Exchange;
use crate::gate::Passage;
use crate::limits::{Direction, Pace};

/// Counts for one exchange: activity of its MicroVM, usage, the access log and the metrics.
#[derive(Clone)]
pub(crate) struct Meter {
    pub(crate) passage: Arc<dyn Passage>,
    pub(crate) exchange: Arc<Exchange>,
}

impl Meter {
    /// Bytes came from the client.
    pub(crate) fn up(&self, bytes: usize) {
        self.passed(Direction::Up, bytes);
    }

    /// Bytes go to the client.
    pub(crate) fn down(&self, bytes: usize) {
        self.passed(Direction::Down, bytes);
    }

    /// The same for a stream of the platform's own: a shell, a command, a file. It waits for its turn as the application's do.
    pub(crate) async fn up_in_turn(&self, bytes: usize) {
        self.up(bytes);
        self.wait(Direction::Up, bytes).await;
    }

    /// The other way.
    pub(crate) async fn down_in_turn(&self, bytes: usize) {
        self.down(bytes);
        self.wait(Direction::Down, bytes).await;
    }

    async fn wait(&self, direction: Direction, bytes: usize) {
        let mut pace = Pace::new(direction, self.exchange.limits);
        pace.passed(bytes, &self.exchange.endpoint.usage);
        poll_fn(|cx| pace.poll_ready(cx)).await;
    }

    /// Bytes went one way or the other.
    pub(crate) fn passed(&self, direction: Direction, bytes: usize) {
        self.passage.touch();
        match direction {
            Direction::Up => self.passage.moved(bytes as u64, 0),
            Direction::Down => self.passage.moved(0, bytes as u64),
        }
        self.exchange.passed(direction, bytes);
    }
}
