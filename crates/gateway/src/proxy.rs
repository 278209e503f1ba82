use std::sync::{Arc, RwLock};

use hearth_token::{Grant, Keyring};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Empty};
use hyper::body::{Body, Incoming};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::authenticate::authenticate;
use crate::body::{RequestBody, ResponseBody, Watched};
use crate::console::{Service, Visit};
use crate::gate::{MicroVms, Passage, Pending};
use crate::headers;
use crate::listen::GatewayConfig;
use crate::respond::{Refusal, request_id_value};
use crate::subprotocol::Offer;
use crate::target;
use crate::upgrade::Upgrade;
use crate::upstream::{Machine, Upstreams, h1_authority};

/// All that a request needs.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) microvms: Arc<dyn MicroVms>,
    pub(crate) tokens: Arc<RwLock<Keyring>>,
    pub(crate) upstreams: Arc<Upstreams>,
    /// Connections and tunnels.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when whatever still runs must stop at once.
    pub(crate) cut: CancellationToken,
}

/// Where a checked request goes.
struct Destination {
    microvm_id: String,
    port: u16,
    host: HeaderValue,
    /// The platform's own service behind a shell token; the application otherwise.
    service: Option<Service>,
}

impl Gateway {
    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        server_name: Option<&str>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let request_id = Uuid::new_v4();
        match self.forward(server_name, request, request_id).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(%request_id, ?refusal, "request refused");
                refusal.response(request_id)
            }
        }
    }

    async fn forward(
        &self,
        server_name: Option<&str>,
        mut request: Request<Incoming>,
        request_id: Uuid,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let upgrade = Upgrade::take(&mut request);
        let offer = Offer::take(request.headers_mut());
        let offer = upgrade
            .as_ref()
            .is_some_and(Upgrade::is_websocket)
            .then_some(offer);
        let destination = self.check(&request, server_name, offer.as_ref())?;

        let passage = match destination.service {
            None => self.microvms.enter(&destination.microvm_id).await?,
            Some(_) => self.microvms.enter_shell(&destination.microvm_id).await?,
        };
        let passage: Arc<dyn Passage> = Arc::from(passage);
        passage.touch();
        if let Some(service) = destination.service {
            let visit = Visit {
                service,
                request,
                upgrade,
                offer,
                passage,
            };
            let mut response = visit.answer(&self.tasks, &self.cut).await?;
            let headers = response.headers_mut();
            headers.insert(headers::REQUEST_ID, request_id_value(request_id));
            return Ok(response);
        }
        let machine = self
            .upstreams
            .machine(&destination.microvm_id, &passage)
            .ok_or(Refusal::BadGateway)?;

        // An upgrade is HTTP/1.1 to its end.
        let h2 = upgrade.is_none() && headers::forces_h2(request.headers());
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, incoming_body(body, &passage));
        headers::prepare_request(
            request.headers_mut(),
            destination.host.clone(),
            request_id_value(request_id),
        );
        if let Some(upgrade) = &upgrade {
            upgrade.announce(request.headers_mut());
        }
        let pending = Pending::begin(passage.clone());
        let response = send(&machine, request, destination.port, h2).await.map_err(|error| {
            tracing::debug!(%request_id, microvm = destination.microvm_id, error = &error as &dyn std::error::Error, "no response");
            Refusal::BadGateway
        })?;
        drop(pending);
        passage.touch();
        self.deliver(response, upgrade, offer, passage, &machine)
    }

    /// Everything that can be known before the gate: who asks, for what, and whether that is granted.
    fn check<B>(
        &self,
        request: &Request<B>,
        server_name: Option<&str>,
        offer: Option<&Offer>,
    ) -> Result<Destination, Refusal> {
        let claims = authenticate(request.headers(), offer, &self.tokens)?;
        let host = target::authority(request, server_name)?;
        let microvm_id = target::endpoint_id(&host, &self.config.domain)
            .and_then(|endpoint_id| self.microvms.find(&endpoint_id))
            .filter(|microvm_id| *microvm_id == claims.microvm_id)
            .ok_or(Refusal::TokenFailed)?;
        if request.method() == Method::CONNECT {
            return Err(Refusal::InvalidRequest);
        }
        if let Some(offer) = offer {
            offer.check()?;
        }
        let port = target::port(request.headers(), offer)?;
        let service = match claims.grant {
            Grant::Shell => Some(Service::of(request, offer.is_some())?),
            Grant::Http(_) if !claims.grant.allows_port(port) => return Err(Refusal::PortDenied),
            Grant::Http(_) => None,
        };
        Ok(Destination {
            microvm_id,
            port,
            host,
            service,
        })
    }

    fn deliver(
        &self,
        mut response: Response<Incoming>,
        upgrade: Option<Upgrade>,
        offer: Option<Offer>,
        passage: Arc<dyn Passage>,
        machine: &Machine,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let chosen = response.headers().get(header::UPGRADE).cloned();
        headers::strip_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or(Refusal::BadGateway)?;
            upgrade.announce(response.headers_mut());
            if let Some(chosen) = chosen {
                response.headers_mut().insert(header::UPGRADE, chosen);
            }
            if let Some(offer) = offer {
                offer.complete(response.headers_mut());
            }
            let application = hyper::upgrade::on(&mut response);
            let (cut, ended) = (self.cut.clone(), machine.ended().clone());
            let passing = passage.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    result = upgrade.tunnel(application, passing) => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "upgraded connection broke");
                        }
                    }
                    () = cut.cancelled() => {}
                    () = ended.cancelled() => {}
                }
            });
        }
        Ok(response.map(|body| Either::Right(Either::Left(Watched::down(body, passage)))))
    }
}

fn incoming_body(body: Incoming, passage: &Arc<dyn Passage>) -> RequestBody {
    if body.is_end_stream() {
        Either::Left(Empty::new())
    } else {
        Either::Right(Watched::up(body, passage.clone()))
    }
}

/// Sends a request and waits for the response's headers.
async fn send(
    machine: &Machine,
    mut request: Request<RequestBody>,
    port: u16,
    h2: bool,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    if h2 {
        let authority = request
            .headers()
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = upstream_uri(request.uri(), authority);
        return machine.h2(port).request(request).await;
    }
    let authority = Authority::try_from(h1_authority(port)).ok();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = upstream_uri(request.uri(), authority);
    headers::suit_http1(request.headers_mut());
    if matches!(request.body(), Either::Right(_)) && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Said aloud, because a body of unknown length is otherwise not expected of a GET.
        request
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // The application may close an idle connection just as the request goes out. What was never sent is sent again
    // by the client itself; beyond that only a safe request without a body is repeated.
    let repeat =
        (request.method().is_safe() && matches!(request.body(), Either::Left(_))).then(|| copy(&request));
    match machine.h1().request(request).await {
        Err(error) if !error.is_connect() && !machine.ended().is_cancelled() => match repeat {
            Some(repeat) => machine.h1().request(repeat).await,
            None => Err(error),
        },
        result => result,
    }
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(Either::Left(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn upstream_uri(from: &Uri, authority: Option<Authority>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = authority.is_some().then_some(Scheme::HTTP);
    parts.authority = authority;
    parts.path_and_query = Some(
        from.path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
    );
    Uri::from_parts(parts).unwrap_or_default()
}
