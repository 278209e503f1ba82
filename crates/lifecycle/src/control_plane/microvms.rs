use hearth_state::Table;
use hearth_wire::{
    ApiError, Caller, Operation, Timestamp,
    arn::{ImageArn, ManagedConnector},
    page, texts,
    types::*,
};

use super::{connectors, internal, versions};
use crate::{
    Service,
    hooks::{HookName, enabled},
    idempotency::ClientToken,
    image::{policy, task::tier_of},
    microvm::{
        Message, Microvm as Handle, MicrovmRecord,
        policy::{Decision, Request, decide},
        public,
        record::Stage,
    },
    rebuild,
    registry::{Position, position},
};

/// The longest life of a MicroVM, and the one of a request that names none.
const MAXIMUM_DURATION_SECONDS: u32 = 28_800;

impl Service {
    pub(crate) async fn run_microvm(
        &self,
        caller: &Caller,
        request: RunMicrovmRequest,
    ) -> Result<RunMicrovmResponse, ApiError> {
        let client_token = ClientToken::of(request.client_token.as_deref(), &request);
        let arn = ImageArn::for_run(&request.image_identifier, caller)?;
        // Held to the end: two calls with one token, or for the last of a quota, come one after the other.
        let catalog = self.inner.catalog.lock().await;
        if let Some(object) = self.launched_before(caller, client_token.as_ref())? {
            return Ok(object);
        }
        let bases = &self.config().base_versions;
        let (image, version) = versions::for_run(&catalog, bases, &arn, request.image_version.as_deref())?;
        policy::no_customer_key(request.kms_key_identifier.as_deref())?;
        let ingress = policy::connectors(
            request.ingress_network_connectors,
            ManagedConnector::HttpIngress,
            caller,
        )?;
        public::check(&ingress, &self.config().public_ports)?;
        let egress = policy::connectors(
            request.egress_network_connectors,
            ManagedConnector::InternetEgress,
            caller,
        )?;
        let ways = connectors::ways(&catalog, caller, &egress)?;
        let hooks = version.specification.hooks.clone();
        if request.run_hook_payload.is_some() && enabled(hooks.as_ref(), HookName::Run).is_none() {
            return Err(texts::run_hook_required());
        }
        let memory_mib = tier_of(&version.specification).minimum_memory_mib as u64;
        if self.memory_taken_mib(caller) + memory_mib > self.config().quotas(&caller.account_id).memory_mib {
            return Err(texts::memory_exhausted());
        }
        let directory = self.node().snapshot_directory(&image.id, version.snapshot());
        let snapshot = self
            .node()
            .host
            .open_to_launch(&directory)
            .map_err(|error| rebuild::refusal(version, &error))?;
        let endpoint_id = uuid::Uuid::new_v4().to_string();
        let record = MicrovmRecord {
            id: format!("microvm-{}", uuid::Uuid::new_v4()),
            account: caller.account_id.clone(),
            region: caller.region.clone(),
            endpoint: format!("{endpoint_id}.{}", self.config().endpoint_domain),
            endpoint_id,
            image_id: image.id.clone(),
            image_arn: arn.to_string(),
            image_version: version.version.clone(),
            snapshot: Some(version.snapshot().to_owned()),
            vmm: Some(snapshot.platform().to_string()),
            memory_mib,
            stage: Stage::Pending,
            guest: None,
            hooks,
            execution_role_arn: request.execution_role_arn,
            idle_policy: request.idle_policy,
            maximum_duration_seconds: request
                .maximum_duration_in_seconds
                .unwrap_or(MAXIMUM_DURATION_SECONDS),
            logging: request.logging,
            ingress,
            egress,
            ways,
            run_hook_payload: request.run_hook_payload,
            started_at: Timestamp::now(),
            suspends: 0,
            suspended_at: None,
            terminated_at: None,
            state_reason: None,
            output_position: 0,
            client_token,
        };
        self.node()
            .state
            .put(Table::Microvms, &record.id, &record.account, &record)
            .await
            .map_err(internal)?;
        let object = record.object();
        self.add_microvm(record, Some(snapshot), None);
        Ok(object)
    }

    pub(crate) async fn get_microvm(
        &self,
        caller: &Caller,
        request: GetMicrovmRequest,
    ) -> Result<GetMicrovmResponse, ApiError> {
        Ok(self
            .find(caller, &request.microvm_identifier)?
            .record
            .borrow()
            .object())
    }

    pub(crate) async fn list_microvms(
        &self,
        caller: &Caller,
        request: ListMicrovmsRequest,
    ) -> Result<ListMicrovmsResponse, ApiError> {
        let arn = request
            .image_identifier
            .as_deref()
            .map(|arn| ImageArn::for_image_operation(arn, caller))
            .transpose()?;
        let arn = arn.map(|arn| arn.to_string());
        let version = request.image_version.as_deref().map(versions::canonical);
        let scope = page::scope(
            caller,
            Operation::ListMicrovms,
            &[arn.as_deref(), version.as_deref()],
        );
        let is_wanted = |record: &MicrovmRecord| {
            arn.as_ref().is_none_or(|arn| *arn == record.image_arn)
                && version
                    .as_ref()
                    .is_none_or(|version| *version == record.image_version)
        };
        let page_key = &self.inner.page_key;
        let after: Option<Position> = request
            .next_token
            .map(|token| page_key.open(&scope, &token))
            .transpose()?;
        let limit = page::limit(request.max_results);
        let found: Vec<(Position, MicrovmItem)> = self
            .registry()
            .owned_by(caller, after)
            .map(|microvm| microvm.record.borrow())
            .filter(|record| is_wanted(record))
            .map(|record| (position(&record), record.item()))
            .take(limit + 1)
            .collect();
        let page = page_key.cut(&scope, limit, found, |(position, _)| position.clone())?;
        Ok(ListMicrovmsResponse {
            items: page.items.into_iter().map(|(_, item)| item).collect(),
            next_token: page.next_token,
        })
    }

    pub(crate) async fn suspend_microvm(
        &self,
        caller: &Caller,
        request: SuspendMicrovmRequest,
    ) -> Result<SuspendMicrovmResponse, ApiError> {
        let microvm = self.find(caller, &request.microvm_identifier)?;
        refuse_early(&microvm, Request::Suspend)?;
        self.ask(&microvm, Message::Suspend).await?;
        Ok(SuspendMicrovmResponse {})
    }

    pub(crate) async fn resume_microvm(
        &self,
        caller: &Caller,
        request: ResumeMicrovmRequest,
    ) -> Result<ResumeMicrovmResponse, ApiError> {
        let microvm = self.find(caller, &request.microvm_identifier)?;
        refuse_early(&microvm, Request::Resume)?;
        self.ask(&microvm, Message::Resume).await?;
        Ok(ResumeMicrovmResponse {})
    }

    pub(crate) async fn terminate_microvm(
        &self,
        caller: &Caller,
        request: TerminateMicrovmRequest,
    ) -> Result<TerminateMicrovmResponse, ApiError> {
        let microvm = self.find(caller, &request.microvm_identifier)?;
        // A task that is busy breaks off what it does.
        microvm.terminate.send_replace(true);
        self.ask(&microvm, Message::Terminate).await?;
        Ok(TerminateMicrovmResponse {})
    }

    /// The caller's MicroVM with this id.
    pub(super) fn find(&self, caller: &Caller, id: &str) -> Result<Handle, ApiError> {
        self.microvm(id)
            .filter(|microvm| belongs_to(&microvm.record.borrow(), caller))
            .ok_or_else(|| texts::microvm_not_found(id))
    }

    /// What an earlier launch with this client token made; a conflict when it was another launch.
    fn launched_before(
        &self,
        caller: &Caller,
        client_token: Option<&ClientToken>,
    ) -> Result<Option<RunMicrovmResponse>, ApiError> {
        let registry = self.registry();
        let found = client_token.and_then(|token| registry.launched_with(caller, token.token()));
        let record = found.map(|microvm| microvm.record.borrow());
        let existing = record.iter().map(|record| (record.client_token.as_ref(), record));
        let same = ClientToken::find(client_token, existing)?;
        Ok(same.map(|record| record.object()))
    }

    /// Baseline memory of the caller's MicroVMs that are not terminated.
    fn memory_taken_mib(&self, caller: &Caller) -> u64 {
        let registry = self.registry();
        let records = registry
            .owned_by(caller, None)
            .map(|microvm| microvm.record.borrow());
        let live = records.filter(|record| record.stage != Stage::Terminated);
        live.map(|record| record.memory_mib).sum()
    }
}

fn belongs_to(record: &MicrovmRecord, caller: &Caller) -> bool {
    record.account == caller.account_id && record.region == caller.region
}

/// A refusal needs no answer of a task that may be busy.
fn refuse_early(microvm: &Handle, request: Request) -> Result<(), ApiError> {
    let record = microvm.record.borrow();
    match decide(record.stage, request, record.idle_policy.as_ref()) {
        Decision::Refuse(refusal) => Err(refusal.error(&record.id)),
        _ => Ok(()),
    }
}
