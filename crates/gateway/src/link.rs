//! One connection to the application, in clear or in TLS, whichever the application speaks (spec section 18.1).
//!
//! Everything is first said in clear, for that is what nearly every application speaks, and a probe ahead would cost
//! each wake a round trip. What is said is remembered until the first byte comes back. A TLS server gives itself away
//! then: it sends an alert, complains of plain HTTP, or hangs up without a word. Only if a TLS handshake on a second
//! connection succeeds is what was said repeated there: a TLS server cannot have understood it before.

use std::collections::HashSet;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::gate::Passage;

/// Most bytes remembered while it is not known what the application speaks.
const MEMORY_BYTES: usize = 64 * 1024;
/// First byte of a TLS alert.
const ALERT: u8 = 21;
/// What TLS servers answer to plain HTTP: Go's, then nginx's and Apache's.
const COMPLAINTS: [&[u8]; 3] = [b"HTTPS server", b"HTTPS port", b"SSL-enabled server port"];
/// Longest TLS handshake with an application.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The ports of a MicroVM that are known to speak TLS.
pub(crate) type TlsPorts = Mutex<HashSet<u16>>;

/// How to open another connection to the same port.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) passage: Arc<dyn Passage>,
    pub(crate) port: u16,
    pub(crate) h2: bool,
    pub(crate) tls_ports: Arc<TlsPorts>,
}

impl Way {
    /// Connects in what the port is known to speak, or in clear.
    pub(crate) async fn open(self) -> io::Result<State> {
        let stream = self.passage.dial(self.port).await?;
        stream.set_nodelay(true)?;
        if !self.ports().contains(&self.port) {
            return Ok(State::Unknown(Box::new(Unknown {
                stream,
                way: self,
                said: Vec::new(),
                retry: None,
            })));
        }
        let shaken = self.shake(stream).await;
        if shaken.is_err() {
            self.ports().remove(&self.port);
        }
        Ok(State::Tls(Box::new(shaken?)))
    }

    async fn shake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        static CONFIGURATIONS: OnceLock<Option<[Arc<ClientConfig>; 2]>> = OnceLock::new();
        let made = CONFIGURATIONS.get_or_init(|| Some([client_config(b"http/1.1")?, client_config(b"h2")?]));
        let [h1, h2] = made.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let connector = TlsConnector::from(if self.h2 { h2.clone() } else { h1.clone() });
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await?
    }

    /// Says in TLS what was said in clear in vain.
    async fn repeat(self, said: Vec<u8>) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.passage.dial(self.port).await?;
        stream.set_nodelay(true)?;
        let mut stream = self.shake(stream).await?;
        self.ports().insert(self.port);
        stream.write_all(&said).await?;
        stream.flush().await?;
        Ok(stream)
    }

    fn ports(&self) -> std::sync::MutexGuard<'_, HashSet<u16>> {
        self.tls_ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of the other side.
pub(crate) enum State {
    Unknown(Box<Unknown>),
    /// In clear; the bytes were read while it was found out.
    Clear(TcpStream, Vec<u8>),
    Tls(Box<TlsStream<TcpStream>>),
    Failed(io::ErrorKind),
}

pub(crate) struct Unknown {
    stream: TcpStream,
    way: Way,
    said: Vec<u8>,
    retry: Option<Retry>,
}

struct Retry {
    attempt: Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>,
    /// What the first connection ended with: it stands if the attempt fails.
    first: Result<Vec<u8>, io::ErrorKind>,
}

/// A connection that breaks when its MicroVM is suspended or ends, rather than wait for an answer forever.
pub(crate) struct Link {
    state: State,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Link {
    pub(crate) fn new(state: State, ended: WaitForCancellationFutureOwned) -> Link {
        Link {
            state,
            ended: Box::pin(ended),
        }
    }

    /// Ready unless a second connection is being tried.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Unknown(unknown) = &mut self.state else {
            return Poll::Ready(());
        };
        let Some(retry) = &mut unknown.retry else {
            return Poll::Ready(());
        };
        let outcome = ready!(retry.attempt.as_mut().poll(cx));
        let first = std::mem::replace(&mut retry.first, Ok(Vec::new()));
        let State::Unknown(unknown) = std::mem::replace(&mut self.state, State::Failed(io::ErrorKind::Other))
        else {
            return Poll::Ready(());
        };
        self.state = match (outcome, first) {
            (Ok(stream), _) => State::Tls(Box::new(stream)),
            (Err(_), Ok(read)) => State::Clear(unknown.stream, read),
            (Err(_), Err(kind)) => State::Failed(kind),
        };
        Poll::Ready(())
    }

    fn settle_in_clear(&mut self) {
        match std::mem::replace(&mut self.state, State::Failed(io::ErrorKind::Other)) {
            State::Unknown(unknown) => self.state = State::Clear(unknown.stream, Vec::new()),
            other => self.state = other,
        }
    }

    fn poll_write_with(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_settled(cx));
        match &mut self.state {
            State::Clear(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            State::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            State::Failed(kind) => Poll::Ready(Err((*kind).into())),
            State::Unknown(unknown) => {
                match ready!(Pin::new(&mut unknown.stream).poll_write_vectored(cx, bufs)) {
                    Ok(written) if unknown.said.len() + written > MEMORY_BYTES => {
                        self.settle_in_clear();
                        Poll::Ready(Ok(written))
                    }
                    Ok(written) => {
                        unknown.remember(bufs, written);
                        Poll::Ready(Ok(written))
                    }
                    Err(error) if unknown.said.is_empty() => Poll::Ready(Err(error)),
                    Err(error) => {
                        unknown.try_tls(Err(error.kind()));
                        self.poll_write_with(cx, bufs)
                    }
                }
            }
        }
    }
}

impl Unknown {
    fn remember(&mut self, bufs: &[IoSlice<'_>], written: usize) {
        let mut left = written;
        for buf in bufs {
            let part = &buf[..left.min(buf.len())];
            self.said.extend_from_slice(part);
            left -= part.len();
        }
    }

    fn try_tls(&mut self, first: Result<Vec<u8>, io::ErrorKind>) {
        let attempt = Box::pin(self.way.clone().repeat(std::mem::take(&mut self.said)));
        self.retry = Some(Retry { attempt, first });
    }
}

/// Whether a first answer is one of a TLS server that was spoken to in clear.
fn is_complaint(answer: &[u8]) -> bool {
    let refused = answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 400");
    let complains = |phrase: &&[u8]| answer.windows(phrase.len()).any(|part| part == *phrase);
    answer.first() == Some(&ALERT) || (refused && COMPLAINTS.iter().any(complains))
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        loop {
            ready!(self.poll_settled(cx));
            let unknown = match &mut self.state {
                State::Clear(stream, read) if read.is_empty() => return Pin::new(stream).poll_read(cx, buf),
                State::Clear(_, read) => {
                    let part = read.len().min(buf.remaining());
                    buf.put_slice(&read[..part]);
                    read.drain(..part);
                    return Poll::Ready(Ok(()));
                }
                State::Tls(stream) => return Pin::new(stream).poll_read(cx, buf),
                State::Failed(io::ErrorKind::UnexpectedEof) => return Poll::Ready(Ok(())),
                State::Failed(kind) => return Poll::Ready(Err((*kind).into())),
                State::Unknown(unknown) => unknown,
            };
            let before = buf.filled().len();
            let outcome = ready!(Pin::new(&mut unknown.stream).poll_read(cx, buf));
            let answer = &buf.filled()[before..];
            let first = match &outcome {
                Ok(()) if answer.is_empty() => Err(io::ErrorKind::UnexpectedEof),
                Ok(()) => Ok(answer.to_vec()),
                Err(error) => Err(error.kind()),
            };
            let in_vain = first.as_ref().map_or(true, |answer| is_complaint(answer));
            if !in_vain || unknown.said.is_empty() {
                self.settle_in_clear();
                return Poll::Ready(outcome);
            }
            buf.set_filled(before);
            unknown.try_tls(first);
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Tls(stream) => Pin::new(stream).poll_flush(cx),
            // TCP holds nothing back.
            State::Unknown(_) | State::Clear(..) | State::Failed(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Unknown(unknown) => Pin::new(&mut unknown.stream).poll_shutdown(cx),
            State::Clear(stream, _) => Pin::new(stream).poll_shutdown(cx),
            State::Failed(_) => Poll::Ready(Ok(())),
        }
    }
}

fn client_config(alpn: &[u8]) -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Some(Arc::new(config))
}

/// Accepts whatever certificate an application has: the way to it leads through its own MicroVM only.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_tls_servers_are_told_from_answers() {
        let complaint = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert!(is_complaint(complaint) && is_complaint(&[ALERT, 3, 3, 0, 2, 2, 10]));
        for answer in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\nwhat?"[..],
            b"HTTP/1.1 200 OK\r\n\r\nyou reached an HTTPS server",
            b"HTTP/1.",
            b"",
        ] {
            assert!(!is_complaint(answer), "{answer:?}");
        }
    }
}
