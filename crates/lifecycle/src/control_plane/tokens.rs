use std::sync::PoisonError;

use hearth_token::{Claims, Grant, PortRange};
use hearth_wire::{ApiError, Caller, Timestamp, arn::ManagedConnector, texts, types::*};

use crate::{
    Service,
    microvm::{MicrovmRecord, record::Stage},
};

/// The longest life of a token.
const MAXIMUM_MINUTES: u32 = 60;

impl Service {
    pub(crate) async fn create_microvm_auth_token(
        &self,
        caller: &Caller,
        request: CreateMicrovmAuthTokenRequest,
    ) -> Result<CreateMicrovmAuthTokenResponse, ApiError> {
        self.mint(
            caller,
            &request.microvm_identifier,
            request.expiration_in_minutes,
            |_| {
                let ranges = request.allowed_ports.iter().map(range);
                Ok(Grant::Http(ranges.collect::<Result<_, _>>()?))
            },
        )
    }

    pub(crate) async fn create_microvm_shell_auth_token(
        &self,
        caller: &Caller,
        request: CreateMicrovmShellAuthTokenRequest,
    ) -> Result<CreateMicrovmShellAuthTokenResponse, ApiError> {
        self.mint(
            caller,
            &request.microvm_identifier,
            request.expiration_in_minutes,
            |record| {
                let has = |connector: ManagedConnector| {
                    record
                        .ingress
                        .iter()
                        .any(|arn| arn.ends_with(&format!(":{}", connector.name())))
                };
                match (
                    has(ManagedConnector::ShellIngress),
                    has(ManagedConnector::AllIngress),
                ) {
                    (true, true) => Err(texts::all_ingress_combined()),
                    (true, false) => Ok(Grant::Shell),
                    (false, _) => Err(texts::shell_ingress_required()),
                }
            },
        )
    }

    fn mint(
        &self,
        caller: &Caller,
        id: &str,
        minutes: u32,
        grant: impl FnOnce(&MicrovmRecord) -> Result<Grant, ApiError>,
    ) -> Result<CreateMicrovmAuthTokenResponse, ApiError> {
        let microvm = self.find(caller, id)?;
        if minutes > MAXIMUM_MINUTES {
            return Err(texts::token_expiry_too_long(minutes, MAXIMUM_MINUTES));
        }
        let record = microvm.record.borrow();
        if matches!(record.stage, Stage::Terminating | Stage::Terminated) {
            return Err(texts::microvm_terminated(id));
        }
        let expires_at_ms = Timestamp::now().as_millis() as u64 + u64::from(minutes) * 60_000;
        let claims = Claims {
            microvm_id: record.id.clone(),
            grant: grant(&record)?,
            expires_at_ms,
        };
        Ok(CreateMicrovmAuthTokenResponse::of(
            self.inner
                .keyring
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .mint(&claims),
        ))
    }
}

fn range(specification: &PortSpecification) -> Result<PortRange, ApiError> {
    match *specification {
        PortSpecification::Port(port) => Ok(PortRange::single(port)),
        PortSpecification::Range(range) if range.start_port > range.end_port => {
            Err(texts::reversed_port_range(range.start_port, range.end_port))
        }
        PortSpecification::Range(range) => Ok(PortRange {
            start: range.start_port,
            end: range.end_port,
        }),
        PortSpecification::AllPorts(_) => Ok(PortRange::ALL),
    }
}
