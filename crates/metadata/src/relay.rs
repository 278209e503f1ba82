//! Carries a guest's connections to the control listener, bytes as they are: TLS and signatures are between those two.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections of one guest at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// Of all guests: the listener has places for others.
pub(crate) const ALL_CONNECTIONS: usize = 256;
/// How long the listener may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last. The listener itself ends those that say nothing.
const LONGEST: Duration = Duration::from_secs(3600);
/// Pause after a failed accept: descriptors may be free again then.
const BREATHER: Duration = Duration::from_millis(50);

/// Serves until it is aborted, and its connections with it.
pub(crate) async fn serve(listener: TcpListener, to: SocketAddr, all: Arc<Semaphore>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(BREATHER).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let taken = (
            places.clone().try_acquire_owned(),
            all.clone().try_acquire_owned(),
        );
        let (Ok(place), Ok(of_all)) = taken else {
            continue;
        };
        connections.spawn(async move {
            let _places = (place, of_all);
            let carry = async {
                let mut api = timeout(PATIENCE, TcpStream::connect(to)).await??;
                copy_bidirectional(&mut stream, &mut api).await
            };
            // Whoever breaks off ends the other side, and that is all.
            let _ = timeout(LONGEST, carry).await;
        });
    }
}
