//! Keys and roles: in memory for every request, in the database before they count.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use hearth_state::{Changes, State, StateError, Table};
use hearth_wire::{ApiError, ErrorKind, Timestamp, arn::RoleArn};
use ring::rand::SystemRandom;

use crate::{
    identity::{Identity, Permissions, Principal},
    policy::{Context, Decision, Policy, PolicyError},
    records::{KeyRecord, RoleRecord},
    session::{self, NoRandom, Session, SessionKey, TokenError},
};

/// What a role may do that was never created: read artifacts and write logs of its own account, and connect to networks.
const DEFAULT_ROLE: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*",
    "Action": ["s3:GetObject", "s3:ListBucket", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
    "ec2:CreateNetworkInterface", "ec2:CreateTags"]}]}"#;

/// Choices of the operator.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Roles must have been created; otherwise any name stands for a role that reads artifacts, writes logs
    /// and connects to networks.
    pub strict_roles: bool,
}

/// Why a key or role was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The policy.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// No such key or role.
    #[error("{0}")]
    NotFound(String),
    /// A role of this name.
    #[error("{0}")]
    Exists(String),
    /// It would lock everybody out.
    #[error("{0}")]
    Last(String),
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// This machine.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// The keys and roles of every account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Iam {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    settings: Settings,
    session_key: SessionKey,
    default_role: Arc<Policy>,
    known: RwLock<Known>,
    /// One change at a time, so that memory and database agree.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<String, Key>,
    roles: HashMap<String, Role>,
}

#[derive(Debug, Clone)]
struct Key {
    record: KeyRecord,
    permissions: Permissions,
}

#[derive(Debug, Clone)]
struct Role {
    record: RoleRecord,
    policy: Option<Arc<Policy>>,
}

impl Key {
    fn of(record: KeyRecord) -> Result<Key, PolicyError> {
        let permissions = match (record.administrator, &record.policy) {
            (true, _) => Permissions::Administrator,
            (false, Some(text)) => Permissions::Policies(vec![Arc::new(Policy::read(text)?)]),
            (false, None) => Permissions::Nothing,
        };
        Ok(Key { record, permissions })
    }
}

impl Role {
    fn of(record: RoleRecord) -> Result<Role, PolicyError> {
        let policy = record.policy.as_deref().map(Policy::read).transpose()?;
        Ok(Role {
            record,
            policy: policy.map(Arc::new),
        })
    }
}

impl Iam {
    /// Reads keys and roles; makes the first key, an administrator of `first_account`, where there is none.
    pub async fn open(
        state: State,
        session_key: SessionKey,
        settings: Settings,
        first_account: &str,
    ) -> Result<Iam, KeyError> {
        let mut known = Known::default();
        for record in state.all::<KeyRecord>(Table::AccessKeys).await? {
            known.keys.insert(record.access_key_id.clone(), Key::of(record)?);
        }
        for record in state.all::<RoleRecord>(Table::Roles).await? {
            known
                .roles
                .insert(RoleRecord::key(&record.account, &record.name), Role::of(record)?);
        }
        let is_new = known.keys.is_empty();
        let iam = Iam {
            inner: Arc::new(Inner {
                state,
                settings,
                session_key,
                default_role: Arc::new(Policy::read(DEFAULT_ROLE)?),
                known: RwLock::new(known),
                changing: tokio::sync::Mutex::default(),
            }),
        };
        if is_new {
            iam.create_key(first_account, None, true, None).await?;
        }
        Ok(iam)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.inner.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn session_key(&self) -> &SessionKey {
        &self.inner.session_key
    }

    /// Makes a key; the record holds its secret.
    pub async fn create_key(
        &self,
        account: &str,
        user: Option<&str>,
        administrator: bool,
        policy: Option<&str>,
    ) -> Result<KeyRecord, KeyError> {
        let random = SystemRandom::new();
        let key = Key::of(KeyRecord {
            access_key_id: session::new_id("AKIA", &random)?,
            secret_access_key: session::new_secret(&random)?,
            account: account.to_owned(),
            user: user.map(str::to_owned),
            administrator,
            policy: policy.map(str::to_owned),
            created_at: Timestamp::now(),
        })?;
        let _alone = self.inner.changing.lock().await;
        let record = key.record.clone();
        self.inner
            .state
            .put(Table::AccessKeys, &record.access_key_id, account, &record)
            .await?;
        self.change(|known| {
            known.keys.insert(record.access_key_id.clone(), key);
        });
        Ok(record)
    }

    /// Keys of one account, or of all, oldest first.
    pub fn keys(&self, account: Option<&str>) -> Vec<KeyRecord> {
        let known = self.known();
        let records = known.keys.values().map(|key| &key.record);
        let mut records: Vec<KeyRecord> = records
            .filter(|record| account.is_none_or(|account| record.account == account))
            .cloned()
            .collect();
        records.sort_by(|a, b| (a.created_at, &a.access_key_id).cmp(&(b.created_at, &b.access_key_id)));
        records
    }

    /// The oldest administrator's key: what this machine's own clients use.
    pub fn first_administrator(&self) -> Option<KeyRecord> {
        self.keys(None).into_iter().find(|record| record.administrator)
    }

    /// Revokes a key, of `account` alone where one is named. It is refused from the next request on.
    pub async fn revoke_key(&self, access_key_id: &str, account: Option<&str>) -> Result<(), KeyError> {
        let _alone = self.inner.changing.lock().await;
        let all = self.keys(None);
        let record = all
            .iter()
            .find(|record| record.access_key_id == access_key_id)
            .filter(|record| account.is_none_or(|account| record.account == account))
            .ok_or_else(|| KeyError::NotFound(format!("The access key {access_key_id} does not exist.")))?;
        if record.administrator && all.iter().filter(|record| record.administrator).count() == 1 {
            return Err(KeyError::Last(
                "The last administrator's key cannot be revoked. Create another one first.".into(),
            ));
        }
        let changes = Changes::new().delete(Table::AccessKeys, access_key_id);
        self.inner.state.commit(changes).await?;
        self.change(|known| {
            known.keys.remove(access_key_id);
        });
        Ok(())
    }

    /// Makes a role.
    pub async fn create_role(&self, account: &str, name: &str, policy: &str) -> Result<RoleRecord, KeyError> {
        let _alone = self.inner.changing.lock().await;
        let key = RoleRecord::key(account, name);
        if self
            .known()
            .roles
            .get(&key)
            .is_some_and(|role| role.policy.is_some())
        {
            return Err(KeyError::Exists(format!("Role with name {name} already exists.")));
        }
        let record = RoleRecord {
            account: account.to_owned(),
            name: name.to_owned(),
            id: session::new_id("AROA", &SystemRandom::new())?,
            policy: Some(policy.to_owned()),
            created_at: Timestamp::now(),
        };
        self.put_role(record.clone()).await?;
        Ok(record)
    }

    /// Removes a role. Its sessions may do nothing from then on, nor may its name until it is created again.
    pub async fn remove_role(&self, account: &str, name: &str) -> Result<(), KeyError> {
        let _alone = self.inner.changing.lock().await;
        let found = self.known().roles.get(&RoleRecord::key(account, name)).cloned();
        let role = found
            .filter(|role| role.policy.is_some())
            .ok_or_else(|| KeyError::NotFound(format!("The role with name {name} cannot be found.")))?;
        self.put_role(RoleRecord {
            policy: None,
            ..role.record
        })
        .await
    }

    async fn put_role(&self, record: RoleRecord) -> Result<(), KeyError> {
        let role = Role::of(record)?;
        let key = RoleRecord::key(&role.record.account, &role.record.name);
        self.inner
            .state
            .put(Table::Roles, &key, &role.record.account, &role.record)
            .await?;
        self.change(|known| {
            known.roles.insert(key, role);
        });
        Ok(())
    }

    /// The roles of an account, by name.
    pub fn roles(&self, account: &str) -> Vec<RoleRecord> {
        let known = self.known();
        let records = known.roles.values().map(|role| &role.record);
        let mut records: Vec<RoleRecord> = records
            .filter(|record| record.account == account && record.policy.is_some())
            .cloned()
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// Id and policy of a role, created or not; `None` when there is none.
    pub(crate) fn role(&self, arn: &RoleArn) -> Option<(String, Arc<Policy>)> {
        match self.known().roles.get(&RoleRecord::key(&arn.account, arn.name())) {
            Some(role) => Some((role.record.id.clone(), role.policy.clone()?)),
            None if self.inner.settings.strict_roles => None,
            None => Some((implicit_id(arn), self.inner.default_role.clone())),
        }
    }

    /// Whether a role of `account` may do something: what this service asks before it acts for the role. Condition keys
    /// of that one action come with it.
    pub fn role_may(
        &self,
        account: &str,
        role_arn: &str,
        action: &str,
        resource: &str,
        conditions: &[(&str, &str)],
    ) -> bool {
        let mut context = Context::default();
        for (key, value) in conditions {
            context.set(key, *value);
        }
        context.set("aws:PrincipalAccount", account);
        context.set("aws:PrincipalArn", role_arn);
        let role = role_arn.parse::<RoleArn>().ok();
        role.filter(|role| role.account == account)
            .and_then(|role| self.role(&role))
            .is_some_and(|(_, policy)| policy.decide(action, resource, &context) == Decision::Allow)
    }

    /// The secret that signs for a key id, whether or not its session token is any good.
    pub fn secret(&self, access_key_id: &str) -> Option<hearth_wire::Sensitive> {
        if access_key_id.starts_with(session::PREFIX) {
            return Some(self.session_key().secret(access_key_id));
        }
        let known = self.known();
        known
            .keys
            .get(access_key_id)
            .map(|key| key.record.secret_access_key.clone())
    }

    /// Whom a key stands for.
    pub fn identify(&self, access_key_id: &str, session_token: Option<&str>) -> Result<Identity, ApiError> {
        let unknown = || {
            ApiError::new(
                ErrorKind::UnrecognizedClient,
                "The security token included in the request is invalid.",
            )
        };
        match session_token {
            None => self
                .known()
                .keys
                .get(access_key_id)
                .map(of_key)
                .ok_or_else(unknown),
            Some(token) => match self.session_key().open(access_key_id, token) {
                Ok(session) => self.of_session(session).ok_or_else(unknown),
                Err(TokenError::Invalid) => Err(unknown()),
                Err(TokenError::Expired) => Err(ApiError::new(
                    ErrorKind::ExpiredToken,
                    "The security token included in the request is expired",
                )),
            },
        }
    }

    fn of_session(&self, session: Session) -> Option<Identity> {
        let role: RoleArn = session.role_arn.parse().ok()?;
        let current = self.role(&role).filter(|(id, _)| *id == session.role_id);
        let bound = session.policy.as_deref().map(Policy::read).transpose().ok()?;
        let permissions = match current {
            Some((_, policy)) => {
                Permissions::Policies(std::iter::once(policy).chain(bound.map(Arc::new)).collect())
            }
            None => Permissions::Nothing,
        };
        Some(Identity {
            account: role.account.clone(),
            secret_access_key: self.session_key().secret(&session.key),
            principal: Principal::Session {
                role,
                role_id: session.role_id,
                name: session.name,
                issued_at: session.issued_at,
            },
            permissions,
        })
    }
}

fn of_key(key: &Key) -> Identity {
    let record = &key.record;
    Identity {
        account: record.account.clone(),
        secret_access_key: record.secret_access_key.clone(),
        principal: match &record.user {
            Some(name) => Principal::User {
                name: name.clone(),
                key: record.access_key_id.clone(),
            },
            None => Principal::Root,
        },
        permissions: key.permissions.clone(),
    }
}

/// The id of a role that was never created: the same for one ARN, and none that a created role has.
fn implicit_id(arn: &RoleArn) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, arn.to_string().as_bytes());
    let hex: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    format!("AROA{hex}")
}
