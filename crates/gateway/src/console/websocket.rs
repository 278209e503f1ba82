//! The WebSocket's server side.

use std::future::Future;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::body::ResponseBody;
use crate::respond::Refusal;
use crate::subprotocol::Offer;
use crate::upgrade::Upgrade;

/// Largest message taken from a client.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How long a client may take to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;
pub(super) type Sink = SplitSink<Socket, Message>;
pub(super) type Stream = SplitStream<Socket>;

/// The 101, and the socket that will be there once it has been sent (`None`: the client left before).
pub(super) fn accept<B>(
    request: &Request<B>,
    upgrade: Upgrade,
    offer: Option<Offer>,
) -> Result<
    (
        Response<ResponseBody>,
        impl Future<Output = Option<Socket>> + use<B>,
    ),
    Refusal,
> {
    let key = key(request.headers()).ok_or(Refusal::InvalidRequest)?;
    let accepted = HeaderValue::try_from(derive_accept_key(key)).map_err(|_| Refusal::InvalidRequest)?;
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    upgrade.announce(response.headers_mut());
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if let Some(offer) = offer {
        offer.complete(response.headers_mut());
    }
    let client = upgrade.into_client();
    let socket = async move {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let client = TokioIo::new(client.await.ok()?);
        Some(WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await)
    };
    Ok((response, socket))
}

/// The handshake's key, if this is a handshake of the one version there is (RFC 6455).
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    (version == "13" && key.len() == 24).then(|| key.as_bytes())
}

/// Closes a socket for a reason, and waits a moment for the client to agree.
pub(super) async fn close(mut sink: Sink, mut stream: Stream, code: CloseCode, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // A client that has gone needs no close.
    if sink.send(Message::Close(Some(frame))).await.is_ok() {
        let agreed = async { while let Some(Ok(_)) = stream.next().await {} };
        let _late = timeout(CLOSE_TIMEOUT, agreed).await;
    }
}
