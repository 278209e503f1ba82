//! Who listens on TCP in this guest.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hearth_agent_protocol::AGENT_PORT;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// `TCP_LISTEN` as /proc/net/tcp prints it.
const LISTEN: &str = "0A";

/// Waits until any TCP socket but the agent's own listens; false when the time is over first.
pub fn wait(timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let found = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .any(|path| fs::read_to_string(path).is_ok_and(|table| any_listens(&table)));
        if found {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// Whether a table in the format of /proc/net/tcp has a listener on a port other than the agent's.
fn any_listens(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        let port = local
            .and_then(|address| address.rsplit_once(':'))
            .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        state == Some(LISTEN) && port.is_some_and(|port| port != AGENT_PORT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n";

    #[test]
    fn a_listener_counts_and_an_established_connection_does_not() {
        let listener = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n";
        let connection =
            "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0\n";
        assert!(any_listens(&format!("{HEADER}{connection}{listener}")));
        assert!(!any_listens(&format!("{HEADER}{connection}")));
    }

    #[test]
    fn the_agents_own_listener_does_not_count() {
        let own = "   0: 02004064:0001 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n";
        assert!(!any_listens(&format!("{HEADER}{own}")));
    }

    #[test]
    fn a_listener_that_appears_later_ends_the_wait() {
        let later = thread::spawn(|| {
            thread::sleep(Duration::from_millis(50));
            std::net::TcpListener::bind("127.0.0.1:0").expect("binds")
        });
        assert!(wait(Duration::from_secs(60)));
        drop(later.join());
    }
}
