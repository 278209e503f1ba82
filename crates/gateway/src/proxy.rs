use std::future::{Future, poll_fn};
use std::sync::{Arc, RwLock};
use std::task::Poll;

use hearth_token::{Grant, Keyring};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::authenticate::{authenticate, shows_token};
use crate::body::{RequestBody, ResponseBody, Watched};
use crate::client::Client;
use crate::connect;
use crate::console::{Service, Visit};
use crate::endpoint::EndpointStates;
use crate::exchange::Exchange;
use crate::gate::{Attachment, Endpoint, MicroVms, Passage, Pending};
use crate::headers;
use crate::limits::Direction;
use crate::listen::GatewayConfig;
use crate::meter::Meter;
use crate::pool::Answer;
use crate::respond::{Refusal, request_id_value};
use crate::send::send;
use crate::subprotocol::Offer;
use crate::target;
use crate::upgrade::{Upgrade, tunnel};
use crate::upstream::{Machine, Upstreams};

/// All that a request needs.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) microvms: Arc<dyn MicroVms>,
    pub(crate) tokens: Arc<RwLock<Keyring>>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) endpoints: EndpointStates,
    /// Connections and tunnels.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when whatever still runs must stop at once.
    pub(crate) cut: CancellationToken,
}

/// Where a checked request goes.
struct Destination {
    endpoint_id: String,
    endpoint: Endpoint,
    port: u16,
    host: HeaderValue,
    /// The platform's own service behind a shell token; the application otherwise.
    service: Option<Service>,
    /// Nobody had to say who they are.
    public: bool,
}

impl Gateway {
    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        client: &Arc<Client>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let request_id = Uuid::new_v4();
        match self.admit(client, request, request_id).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(%request_id, client = %client.address, ?refusal, "request refused");
                self.endpoints.metrics.refused(refusal.reason());
                refusal.response(request_id)
            }
        }
    }

    /// Lets a request in, or says why not before anything is asked of the MicroVM.
    async fn admit(
        &self,
        client: &Arc<Client>,
        mut request: Request<Incoming>,
        request_id: Uuid,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let extended = Upgrade::take_extended(&mut request);
        let is_extended = extended.is_some();
        let upgrade = extended.or_else(|| Upgrade::take(&mut request));
        let offer = Offer::take(request.headers_mut());
        let offer = upgrade
            .as_ref()
            .is_some_and(Upgrade::is_websocket)
            .then_some(offer);
        let destination = self.check(&request, client.server_name.as_deref(), offer.as_ref())?;
        let Endpoint { microvm_id, limits } = &destination.endpoint;
        let state = self.endpoints.of(microvm_id, &destination.endpoint_id);
        if !client.join(&state, *limits) || !state.usage.admit(*limits) {
            state.series.limited.inc();
            return Err(Refusal::TooManyRequests);
        }
        let exchange = Arc::new(Exchange::begin(
            request_id,
            &request,
            state,
            (*limits, destination.port),
            client,
            self.config.access_log,
        ));
        let mut response = self
            .forward(request, (upgrade, offer), destination, &exchange)
            .await
            .unwrap_or_else(|refusal| {
                tracing::debug!(%request_id, ?refusal, "no response");
                refusal.response(request_id)
            });
        exchange.answered(response.status().as_u16());
        if is_extended {
            Upgrade::answer_extended(&mut response);
        }
        Ok(response)
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        (upgrade, offer): (Option<Upgrade>, Option<Offer>),
        destination: Destination,
        exchange: &Arc<Exchange>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let passage = self
            .enter(exchange, destination.service.is_some() || destination.public)
            .await?;
        let what = destination
            .service
            .map_or(Attachment::Stream, Service::attachment);
        exchange.attach(&passage, what);
        passage.touch();
        if let Some(service) = destination.service {
            let visit = Visit {
                service,
                request,
                upgrade,
                offer,
                passage,
                exchange: exchange.clone(),
            };
            let mut response = visit.answer(&self.tasks, &self.cut).await?;
            let headers = response.headers_mut();
            headers.insert(headers::REQUEST_ID, request_id_value(exchange.id));
            return Ok(response);
        }
        let (machine, fresh) = self
            .upstreams
            .machine(&destination.endpoint.microvm_id, &passage)
            .ok_or(Refusal::BadGateway)?;
        if fresh && exchange.was_held() {
            exchange.endpoint.series.wakes.inc();
        }
        if request.method() == Method::CONNECT {
            return self.connect(request, passage, exchange, &machine).await;
        }

        // An upgrade is HTTP/1.1 to its end.
        let h2 = upgrade.is_none() && headers::forces_h2(request.headers());
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, incoming_body(body, &passage, exchange));
        headers::prepare_request(
            request.headers_mut(),
            destination.host,
            request_id_value(exchange.id),
        );
        if let Some(upgrade) = &upgrade {
            upgrade.announce(request.headers_mut());
        }
        if let Some(trace) = &exchange.trace {
            trace.inject(request.headers_mut());
        }
        let pending = Pending::begin(passage.clone());
        let response = send(&machine, request, destination.port, h2).await.map_err(|error| {
            let (request_id, microvm) = (exchange.id, &exchange.endpoint.microvm_id);
            tracing::debug!(%request_id, microvm, error = &error as &dyn std::error::Error, "no response");
            Refusal::BadGateway
        })?;
        drop(pending);
        passage.touch();
        self.deliver(response, upgrade, offer, passage, (&machine, exchange))
    }

    /// Waits at the gate, if it is not open.
    async fn enter(&self, exchange: &Exchange, whatever_ingress: bool) -> Result<Arc<dyn Passage>, Refusal> {
        let microvm_id = &exchange.endpoint.microvm_id;
        let mut entering = if whatever_ingress {
            self.microvms.enter_shell(microvm_id)
        } else {
            self.microvms.enter(microvm_id)
        };
        let entered = match poll_fn(|cx| Poll::Ready(entering.as_mut().poll(cx))).await {
            Poll::Ready(entered) => entered,
            Poll::Pending => {
                let hold = exchange.endpoint.series.hold();
                let entered = entering.await;
                exchange.held(hold.so_far());
                entered
            }
        };
        Ok(Arc::from(entered?))
    }

    /// Everything that can be known before the gate: who asks, for what, and whether that is granted.
    fn check<B>(
        &self,
        request: &Request<B>,
        server_name: Option<&str>,
        offer: Option<&Offer>,
    ) -> Result<Destination, Refusal> {
        let claims = match authenticate(request.headers(), offer, &self.tokens) {
            Err(Refusal::MissingAuthentication) if !shows_token(request.headers(), offer) => {
                let public = self.check_public(request, server_name, offer);
                return public.ok_or(Refusal::MissingAuthentication);
            }
            claims => claims?,
        };
        let raw = request.method() == Method::CONNECT;
        let host = if raw {
            connect::endpoint(request, server_name)?
        } else {
            target::authority(request, server_name)?
        };
        let endpoint_id = target::endpoint_id(&host, &self.config.domain).ok_or(Refusal::TokenFailed)?;
        let endpoint = self
            .microvms
            .find(&endpoint_id)
            .filter(|endpoint| endpoint.microvm_id == claims.microvm_id)
            .ok_or(Refusal::TokenFailed)?;
        if let Some(offer) = offer {
            offer.check()?;
        }
        let port = if raw {
            connect::port(request)?
        } else {
            target::port(request.headers(), offer)?
        };
        let service = match claims.grant {
            Grant::Shell => Some(Service::of(request, offer.is_some())?),
            Grant::Http(_) if !claims.grant.allows_port(port) => return Err(Refusal::PortDenied),
            Grant::Http(_) => None,
        };
        Ok(Destination {
            endpoint_id,
            endpoint,
            port,
            host,
            service,
            public: false,
        })
    }

    /// Where a request without a token may go all the same.
    fn check_public<B>(
        &self,
        request: &Request<B>,
        server_name: Option<&str>,
        offer: Option<&Offer>,
    ) -> Option<Destination> {
        let (host, asked) = if request.method() == Method::CONNECT {
            let host = connect::endpoint(request, server_name).ok()?;
            (host, Some(connect::port(request).ok()?))
        } else {
            let host = target::authority(request, server_name).ok()?;
            (host, target::asked_port(request.headers(), offer).ok()?)
        };
        let endpoint_id = target::endpoint_id(&host, &self.config.domain)?;
        let port = self.microvms.public_port(&endpoint_id, asked)?;
        Some(Destination {
            endpoint: self.microvms.find(&endpoint_id)?,
            endpoint_id,
            port,
            host,
            service: None,
            public: true,
        })
    }

    /// Opens a raw connection to a port of the guest.
    async fn connect(
        &self,
        mut request: Request<Incoming>,
        passage: Arc<dyn Passage>,
        exchange: &Arc<Exchange>,
        machine: &Machine,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let pending = Pending::begin(passage.clone());
        let dialled = timeout(self.config.dial_timeout, passage.dial(exchange.port)).await;
        drop(pending);
        let Ok(Ok(application)) = dialled else {
            return Err(Refusal::BadGateway);
        };
        let client = hyper::upgrade::on(&mut request);
        let exchange = exchange.clone();
        let meter = Meter { passage, exchange };
        self.carry(machine, async move {
            application.set_nodelay(true)?;
            let client = client.await.map_err(std::io::Error::other)?;
            tunnel(client, application, meter, false).await
        });
        Ok(Response::new(Either::Left(Full::new(Bytes::new()))))
    }

    fn deliver(
        &self,
        mut response: Response<Answer>,
        upgrade: Option<Upgrade>,
        offer: Option<Offer>,
        passage: Arc<dyn Passage>,
        (machine, exchange): (&Machine, &Arc<Exchange>),
    ) -> Result<Response<ResponseBody>, Refusal> {
        let exchange = exchange.clone();
        let meter = Meter { passage, exchange };
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
            self.carry(machine, upgrade.tunnel(application, meter.clone()));
        }
        Ok(response.map(|body| Either::Right(Either::Left(Watched::new(body, meter, Direction::Down)))))
    }

    /// Lets a tunnel run until it is done, its MicroVM is suspended or ends, or the gateway stops.
    fn carry(&self, machine: &Machine, tunnel: impl Future<Output = std::io::Result<()>> + Send + 'static) {
        let (cut, ended) = (self.cut.clone(), machine.ended().clone());
        self.tasks.spawn(async move {
            tokio::select! {
                result = tunnel => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "upgraded connection broke");
                    }
                }
                () = cut.cancelled() => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

fn incoming_body(body: Incoming, passage: &Arc<dyn Passage>, exchange: &Arc<Exchange>) -> RequestBody {
    if body.is_end_stream() {
        Either::Left(Empty::new())
    } else {
        let (passage, exchange) = (passage.clone(), exchange.clone());
        Either::Right(Watched::new(body, Meter { passage, exchange }, Direction::Up))
    }
}
