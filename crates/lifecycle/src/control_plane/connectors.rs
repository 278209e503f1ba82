use hearth_state::{Changes, Table};
use hearth_wire::{
    ApiError, Caller, ErrorKind, Operation, Timestamp,
    arn::{ConnectorArn, ManagedConnector},
    enums::ConnectorState,
    page, texts,
    types::*,
};

use crate::{
    Service,
    catalog::Catalog,
    connector::{
        policy,
        record::{ConnectorRecord, ConnectorVersion, Way},
    },
    idempotency::ClientToken,
    permissions::Actor,
};

/// The errors of lambda-core have names of their own (spec 3.3).
fn internal(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "an operation failed");
    ApiError::new(ErrorKind::Service, "Internal server error")
}

fn invalid(error: ApiError) -> ApiError {
    ApiError {
        kind: ErrorKind::InvalidParameterValue,
        message: error.message.or_else(|| Some("Invalid Marker".into())),
        ..error
    }
}

fn conflict(error: ApiError) -> ApiError {
    ApiError {
        kind: ErrorKind::ResourceConflict,
        ..error
    }
}

/// What an identifier names: an id or a name, and perhaps a version.
struct Identifier {
    key: String,
    version: Option<u64>,
}

impl Identifier {
    fn parse(text: &str, caller: &Caller) -> Result<Identifier, ApiError> {
        if !text.starts_with("arn:") {
            return Ok(Identifier {
                key: text.to_owned(),
                version: None,
            });
        }
        let arn = ConnectorArn::parse(text, caller).map_err(|error| match error.kind {
            ErrorKind::Validation => invalid(error),
            _ => error,
        })?;
        match arn {
            ConnectorArn::Customer { id, version } => Ok(Identifier {
                key: id,
                // A number that is too large names a version that is not there.
                version: version.map(|version| version.parse().unwrap_or(u64::MAX)),
            }),
            ConnectorArn::Managed(_) | ConnectorArn::Public(_) => Err(texts::connector_not_found(text)),
        }
    }
}

impl Service {
    pub(crate) async fn create_network_connector(
        &self,
        caller: &Caller,
        request: CreateNetworkConnectorRequest,
    ) -> Result<CreateNetworkConnectorResponse, ApiError> {
        let operator_role = policy::required(&request)?;
        if request.name.starts_with("arn:") {
            return Err(texts::connector_member_required("Name must not be an ARN"));
        }
        let client_token = ClientToken::of(request.client_token.as_deref(), &request);
        let mut catalog = self.inner.catalog.lock().await;
        let own: Vec<&ConnectorRecord> = catalog.connectors_of(caller).collect();
        let existing = own.iter().map(|record| (record.client_token.as_ref(), *record));
        if let Some(record) = ClientToken::find(client_token.as_ref(), existing).map_err(conflict)? {
            let first = record
                .versions
                .first()
                .ok_or_else(|| internal("a connector without versions"))?;
            return Ok(record.shown(first));
        }
        if let Some(record) = own.iter().find(|record| record.name == request.name) {
            return Err(texts::connector_exists(record.arn()));
        }
        if own.len() >= self.config().quotas(&caller.account_id).network_connectors {
            return Err(ApiError::new(
                ErrorKind::NetworkConnectorLimitExceeded,
                "The maximum number of network connectors has been reached for this account.",
            ));
        }
        let network = &request.configuration.vpc_egress_configuration;
        self.exercise(caller, &operator_role, network)?;
        let now = Timestamp::now();
        let version = ConnectorVersion {
            number: 1,
            configuration: request.configuration,
            operator_role,
            state: ConnectorState::Pending,
            reason: None,
            reason_code: None,
            modified_at: now,
            client_token: None,
        };
        let record = ConnectorRecord {
            id: format!("nc-{}", uuid::Uuid::new_v4()),
            account: caller.account_id.clone(),
            region: caller.region.clone(),
            partition: caller.partition.clone(),
            name: request.name,
            state: ConnectorState::Pending,
            reason: None,
            reason_code: None,
            update: None,
            versions: vec![version.clone()],
            tags: request.tags.unwrap_or_default(),
            created_at: now,
            modified_at: now,
            client_token,
        };
        let answer = record.shown(&version);
        self.write_connector(&mut catalog, record.clone()).await?;
        self.settle_connector(record.id);
        Ok(answer)
    }

    pub(crate) async fn get_network_connector(
        &self,
        caller: &Caller,
        request: GetNetworkConnectorRequest,
    ) -> Result<GetNetworkConnectorResponse, ApiError> {
        let catalog = self.inner.catalog.lock().await;
        let (record, version) = find(&catalog, caller, &request.identifier)?;
        let qualified = version.is_some();
        let shown = version
            .or_else(|| record.usable())
            .or_else(|| record.latest())
            .ok_or_else(|| internal("a connector without versions"))?;
        Ok(record.described(shown, qualified))
    }

    pub(crate) async fn list_network_connectors(
        &self,
        caller: &Caller,
        request: ListNetworkConnectorsRequest,
    ) -> Result<ListNetworkConnectorsResponse, ApiError> {
        let state = request.state.map(ConnectorState::as_str);
        let scope = page::scope(caller, Operation::ListNetworkConnectors, &[state]);
        let catalog = self.inner.catalog.lock().await;
        let mut records: Vec<&ConnectorRecord> = catalog
            .connectors_of(caller)
            .filter(|record| request.state.is_none_or(|state| state == record.state))
            .collect();
        let position =
            |record: &&ConnectorRecord| (i64::MAX - record.created_at.as_millis(), record.id.clone());
        records.sort_by_key(position);
        let key = &self.inner.page_key;
        let page = key
            .paginate(
                &scope,
                request.max_items,
                request.marker.as_deref(),
                records,
                position,
            )
            .map_err(invalid)?;
        Ok(ListNetworkConnectorsResponse {
            network_connectors: page.items.into_iter().map(ConnectorRecord::summary).collect(),
            next_marker: page.next_token,
        })
    }

    pub(crate) async fn list_network_connector_versions(
        &self,
        caller: &Caller,
        request: ListNetworkConnectorVersionsRequest,
    ) -> Result<ListNetworkConnectorVersionsResponse, ApiError> {
        let catalog = self.inner.catalog.lock().await;
        let (record, _) = find(&catalog, caller, &request.identifier)?;
        let state = request.state.map(ConnectorState::as_str);
        let filters = [Some(record.id.as_str()), state];
        let scope = page::scope(caller, Operation::ListNetworkConnectorVersions, &filters);
        let versions = record.versions.iter().rev();
        let versions = versions.filter(|version| request.state.is_none_or(|state| state == version.state));
        let position = |version: &&ConnectorVersion| u64::MAX - version.number;
        let key = &self.inner.page_key;
        let page = key
            .paginate(
                &scope,
                request.max_items,
                request.marker.as_deref(),
                versions,
                position,
            )
            .map_err(invalid)?;
        let items = page
            .items
            .into_iter()
            .map(|version| record.version_summary(version));
        Ok(ListNetworkConnectorVersionsResponse {
            network_connector_versions: items.collect(),
            next_marker: page.next_token,
        })
    }

    pub(crate) async fn update_network_connector(
        &self,
        caller: &Caller,
        request: UpdateNetworkConnectorRequest,
    ) -> Result<UpdateNetworkConnectorResponse, ApiError> {
        let client_token = ClientToken::of(request.client_token.as_deref(), &request);
        let mut catalog = self.inner.catalog.lock().await;
        let (record, version) = find(&catalog, caller, &request.identifier)?;
        if version.is_some() {
            return Err(texts::connector_member_required(
                "A version of a network connector cannot be updated",
            ));
        }
        let tokens = record
            .versions
            .iter()
            .map(|version| (version.client_token.as_ref(), version));
        if let Some(version) = ClientToken::find(client_token.as_ref(), tokens).map_err(conflict)? {
            return Ok(updated(record, version));
        }
        policy::may_change(record)?;
        let mut record = record.clone();
        let current = record
            .latest()
            .ok_or_else(|| internal("a connector without versions"))?
            .clone();
        let change = request
            .configuration
            .map(|configuration| configuration.vpc_egress_configuration);
        let merged = policy::merged(&current.configuration.vpc_egress_configuration, change);
        let role = request
            .operator_role
            .unwrap_or_else(|| current.operator_role.clone());
        let same = merged == current.configuration.vpc_egress_configuration && role == current.operator_role;
        if same {
            policy::unchanged(&mut record);
            let answer = updated(&record, &current);
            self.write_connector(&mut catalog, record).await?;
            return Ok(answer);
        }
        self.exercise(caller, &role, &merged)?;
        let version = ConnectorVersion {
            number: current.number + 1,
            configuration: NetworkConnectorConfiguration {
                vpc_egress_configuration: merged,
            },
            operator_role: role,
            state: ConnectorState::Pending,
            reason: None,
            reason_code: None,
            modified_at: Timestamp::now(),
            client_token,
        };
        policy::begin_update(&mut record, version.clone());
        let answer = updated(&record, &version);
        let id = record.id.clone();
        self.write_connector(&mut catalog, record).await?;
        self.settle_connector(id);
        Ok(answer)
    }

    pub(crate) async fn delete_network_connector(
        &self,
        caller: &Caller,
        request: DeleteNetworkConnectorRequest,
    ) -> Result<DeleteNetworkConnectorResponse, ApiError> {
        let mut catalog = self.inner.catalog.lock().await;
        let (record, version) = find(&catalog, caller, &request.identifier)?;
        let mut record = record.clone();
        let latest = record
            .latest()
            .ok_or_else(|| internal("a connector without versions"))?
            .clone();
        if let Some(version) = version.cloned() {
            policy::may_change(&record)?;
            if version.number == latest.number {
                return Err(ApiError::new(
                    ErrorKind::ResourceConflict,
                    format!(
                        "The latest version of a network connector cannot be deleted: {}",
                        request.identifier
                    ),
                ));
            }
            record.versions.retain(|other| other.number != version.number);
            let answer = NetworkConnector {
                state: Some(ConnectorState::Deleting),
                ..record.shown(&version)
            };
            self.write_connector(&mut catalog, record).await?;
            return Ok(answer);
        }
        policy::may_change(&record)?;
        record.state = ConnectorState::Deleting;
        record.modified_at = Timestamp::now();
        let answer = record.shown(&latest);
        let id = record.id.clone();
        self.write_connector(&mut catalog, record).await?;
        self.settle_connector(id);
        Ok(answer)
    }

    /// Adds or removes tags of a connector.
    pub(super) async fn change_connector_tags(
        &self,
        caller: &Caller,
        arn: &str,
        change: impl FnOnce(&mut std::collections::BTreeMap<String, String>),
    ) -> Result<(), ApiError> {
        let mut catalog = self.inner.catalog.lock().await;
        let mut record = find(&catalog, caller, arn)?.0.clone();
        change(&mut record.tags);
        self.write_connector(&mut catalog, record).await
    }

    /// A connector's tags.
    pub(super) async fn connector_tags(
        &self,
        caller: &Caller,
        arn: &str,
    ) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
        let catalog = self.inner.catalog.lock().await;
        Ok(find(&catalog, caller, arn)?.0.tags.clone())
    }

    async fn write_connector(&self, catalog: &mut Catalog, record: ConnectorRecord) -> Result<(), ApiError> {
        self.node()
            .state
            .put(Table::Connectors, &record.id, &record.account, &record)
            .await
            .map_err(internal)?;
        catalog.connectors.insert(record.id.clone(), record);
        Ok(())
    }

    /// Refuses an operator role that may not do what the connector needs.
    fn exercise(
        &self,
        caller: &Caller,
        role_arn: &str,
        network: &VpcEgressConfiguration,
    ) -> Result<(), ApiError> {
        let actor = Actor {
            account: &caller.account_id,
            region: &caller.region,
            role_arn,
        };
        match self.node().may_connect(actor, network) {
            true => Ok(()),
            false => Err(texts::connector_role_unauthorized()),
        }
    }

    /// Brings a connector in the background to where it is going: provisioned, or deleted.
    pub(crate) fn settle_connector(&self, id: String) {
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.settle(&id).await {
                tracing::error!(connector = id, %error, "a network connector goes on at the next start");
            }
        });
    }

    async fn settle(&self, id: &str) -> Result<(), ApiError> {
        let mut catalog = self.inner.catalog.lock().await;
        let Some(mut record) = catalog.connectors.get(id).cloned() else {
            return Ok(());
        };
        if record.state == ConnectorState::Deleting {
            let gone = Changes::new().delete(Table::Connectors, id);
            self.node().state.commit(gone).await.map_err(internal)?;
            catalog.connectors.remove(id);
            return Ok(());
        }
        let pending = |version: &&ConnectorVersion| version.state == ConnectorState::Pending;
        let Some(version) = record.latest().filter(pending) else {
            return Ok(());
        };
        let verdict = self
            .config()
            .network
            .check(&version.configuration.vpc_egress_configuration);
        policy::settle(&mut record, verdict, Timestamp::now());
        self.write_connector(&mut catalog, record).await
    }
}

/// The ways out that the connectors of a request stand for; customers' must be there and usable.
pub(crate) fn ways(catalog: &Catalog, caller: &Caller, arns: &[String]) -> Result<Vec<Way>, ApiError> {
    arns.iter()
        .map(|arn| match ConnectorArn::parse(arn, caller)? {
            ConnectorArn::Managed(ManagedConnector::InternetEgress) => Ok(Way::Internet),
            ConnectorArn::Managed(_) | ConnectorArn::Public(_) => Err(texts::unrecognized_connector(arn)),
            ConnectorArn::Customer { .. } => {
                let (record, version) = find(catalog, caller, arn).map_err(|error| match error.kind {
                    ErrorKind::ConnectorNotFound => {
                        ApiError::not_found(format!("Network connector not found for: {arn}"))
                    }
                    _ => error,
                })?;
                let standing = !matches!(record.state, ConnectorState::Deleting | ConnectorState::Pending);
                version
                    .or_else(|| record.usable())
                    .filter(|version| standing && policy::usable(version))
                    .map(ConnectorVersion::way)
                    .ok_or_else(|| texts::connector_not_usable(arn))
            }
        })
        .collect()
}

/// The connector, and the version if the identifier names one.
fn find<'a>(
    catalog: &'a Catalog,
    caller: &Caller,
    identifier: &str,
) -> Result<(&'a ConnectorRecord, Option<&'a ConnectorVersion>), ApiError> {
    let wanted = Identifier::parse(identifier, caller)?;
    let not_found = || texts::connector_not_found(identifier);
    let record = catalog
        .connectors_of(caller)
        .find(|record| record.id == wanted.key || record.name == wanted.key)
        .ok_or_else(not_found)?;
    let version = match wanted.version {
        Some(number) => Some(record.version(number).ok_or_else(not_found)?),
        None => None,
    };
    Ok((record, version))
}

fn updated(record: &ConnectorRecord, version: &ConnectorVersion) -> NetworkConnector {
    let update = record.update.as_ref();
    NetworkConnector {
        last_modified: Some(record.modified_at),
        last_update_status: update.map(|update| update.status),
        last_update_status_reason: update.and_then(|update| update.reason.clone()),
        ..record.shown(version)
    }
}
