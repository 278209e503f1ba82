//! Lets one room be seen through another's trait.

use std::io;

use async_trait::async_trait;
use hearth_gateway::{Attachment, Endpoint, GateError, Limits, MicroVms};
use hearth_iam::Iam;
use hearth_lifecycle::Service;
use hearth_logs::LogsService;
use hearth_wire::{ApiError, Caller};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::LimitSettings;

/// The access keys, for S3's signatures.
pub(crate) struct S3Keys(pub Iam);

#[async_trait]
impl hearth_s3::SecretKeys for S3Keys {
    async fn secret(&self, access_key_id: &str) -> Option<String> {
        self.0.secret(access_key_id).map(|secret| secret.0)
    }

    async fn account(&self, access_key_id: &str, session_token: Option<&str>) -> Result<String, ApiError> {
        Ok(self.0.identify(access_key_id, session_token)?.account)
    }
}

/// The MicroVMs' images, for policies.
pub(crate) struct Images(pub Service);

impl hearth_iam::ImageOf for Images {
    fn image_of(&self, account: &str, microvm_id: &str) -> Option<String> {
        self.0.image_of(account, microvm_id)
    }
}

/// The S3 front end, for the API.
pub(crate) fn s3_service(s3: hearth_s3::S3) -> hearth_api::S3Service {
    hearth_api::S3Service::new(tower::service_fn(move |request| {
        let s3 = s3.clone();
        async move {
            Ok(s3
                .call(request)
                .await
                .map(|body| body.map_err(hearth_api::BoxError::from).boxed_unsync()))
        }
    }))
}

/// The logs, for the API.
pub(crate) struct LogService(pub LogsService);

#[async_trait]
impl hearth_api::JsonService for LogService {
    async fn call(
        &self,
        caller: &Caller,
        target: &str,
        body: Value,
    ) -> Result<Value, hearth_api::JsonServiceError> {
        self.0
            .call(&caller.account_id, &caller.region, target, body)
            .await
            .map_err(|error| hearth_api::JsonServiceError {
                status: error.status,
                kind: error.type_name.into(),
                message: error.message,
            })
    }
}

/// The MicroVMs, for the gateway.
pub(crate) struct Endpoints {
    pub service: Service,
    pub limits: LimitSettings,
}

#[async_trait]
impl MicroVms for Endpoints {
    fn find(&self, endpoint_id: &str) -> Option<Endpoint> {
        let found = self.service.find_endpoint(endpoint_id)?;
        Some(Endpoint {
            limits: limits(&self.limits, found.vcpus),
            microvm_id: found.microvm_id,
        })
    }

    fn public_port(&self, endpoint_id: &str, asked: Option<u16>) -> Option<u16> {
        self.service.public_port(endpoint_id, asked)
    }

    async fn enter(&self, microvm_id: &str) -> Result<Box<dyn hearth_gateway::Passage>, GateError> {
        entered(self.service.enter(microvm_id).await)
    }

    async fn enter_shell(&self, microvm_id: &str) -> Result<Box<dyn hearth_gateway::Passage>, GateError> {
        entered(self.service.enter_shell(microvm_id).await)
    }
}

fn entered(
    passage: Result<hearth_lifecycle::Passage, hearth_lifecycle::GateError>,
) -> Result<Box<dyn hearth_gateway::Passage>, GateError> {
    match passage {
        Ok(passage) => Ok(Box::new(Way(passage))),
        Err(hearth_lifecycle::GateError::Closed) => Err(GateError::Closed),
        Err(hearth_lifecycle::GateError::NoIngress) => Err(GateError::NoIngress),
        Err(hearth_lifecycle::GateError::Busy) => Err(GateError::Busy),
    }
}

/// The limits of a size: all of them grow with its CPUs (spec section 18.4).
fn limits(settings: &LimitSettings, vcpus: u32) -> Limits {
    let bound = |per_vcpu: u32| (per_vcpu > 0).then(|| per_vcpu.saturating_mul(vcpus));
    Limits {
        connections: bound(settings.connections_per_vcpu),
        requests_per_second: bound(settings.requests_per_second_per_vcpu),
        bytes_per_second: (settings.bytes_per_second_per_vcpu > 0)
            .then(|| settings.bytes_per_second_per_vcpu.saturating_mul(vcpus.into())),
    }
}

fn attachment(what: Attachment) -> hearth_lifecycle::Attachment {
    match what {
        Attachment::Shell => hearth_lifecycle::Attachment::Shell,
        Attachment::Command => hearth_lifecycle::Attachment::Command,
        Attachment::Stream => hearth_lifecycle::Attachment::Stream,
    }
}

struct Way(hearth_lifecycle::Passage);

#[async_trait]
impl hearth_gateway::Passage for Way {
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        self.0.dial(port).await
    }

    async fn connect_agent(&self) -> io::Result<TcpStream> {
        self.0.connect_agent().await
    }

    async fn ended(&self) {
        self.0.ended().await;
    }

    fn touch(&self) {
        self.0.touch();
    }

    fn moved(&self, to_application: u64, from_application: u64) {
        self.0.count(to_application, from_application);
    }

    fn request_began(&self) {
        self.0.begin();
    }

    fn request_ended(&self) {
        self.0.end();
    }

    fn attached(&self, what: Attachment) {
        self.0.attach(attachment(what));
    }

    fn detached(&self, what: Attachment) {
        self.0.detach(attachment(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_the_limits_are_those_of_the_service() {
        let sizes = [1, 2, 4, 8, 16].map(|vcpus| limits(&LimitSettings::default(), vcpus));
        let connections = sizes.map(|size| size.connections);
        assert_eq!(connections, [8, 16, 32, 64, 128].map(Some));
        let megabytes = sizes.map(|size| size.bytes_per_second.map(|rate| rate / 1_000_000));
        assert_eq!(megabytes, [1, 2, 4, 8, 16].map(Some));
        let requests = sizes.map(|size| size.requests_per_second);
        assert_eq!((requests[2], requests[4]), (Some(40), Some(160)));
    }

    #[test]
    fn zero_is_no_limit() {
        let none = LimitSettings {
            connections_per_vcpu: 0,
            requests_per_second_per_vcpu: 0,
            bytes_per_second_per_vcpu: 0,
            ..LimitSettings::default()
        };
        assert_eq!(limits(&none, 4), Limits::default());
    }
}
