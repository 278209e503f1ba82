//! The MicroVMs of this node, with the ways to find them: by id, by endpoint, by client token, and by owner.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use hearth_wire::Caller;

use crate::microvm::{Microvm, MicrovmRecord};

/// Account and region: whose a MicroVM is.
type Owner = (String, String);

/// Where a MicroVM stands among its owner's, newest first: the start in milliseconds, counted down, and the id.
pub(crate) type Position = (i64, String);

/// Every MicroVM, terminated ones until they are forgotten.
#[derive(Default)]
pub(crate) struct Registry {
    microvms: HashMap<String, Microvm>,
    endpoints: HashMap<String, String>,
    tokens: HashMap<(Owner, String), String>,
    owned: HashMap<Owner, BTreeMap<Position, Microvm>>,
}

impl Registry {
    /// Adds a MicroVM. What it is found by never changes in its life.
    pub(crate) fn insert(&mut self, microvm: Microvm) {
        let keys = Keys::of(&microvm.record.borrow());
        self.endpoints.insert(keys.endpoint_id, keys.id.clone());
        if let Some(token) = keys.client_token {
            self.tokens.insert((keys.owner.clone(), token), keys.id.clone());
        }
        let owned = self.owned.entry(keys.owner).or_default();
        owned.insert(keys.position, microvm.clone());
        self.microvms.insert(keys.id, microvm);
    }

    /// Forgets a MicroVM.
    pub(crate) fn remove(&mut self, id: &str) {
        let Some(microvm) = self.microvms.remove(id) else {
            return;
        };
        let keys = Keys::of(&microvm.record.borrow());
        self.endpoints.remove(&keys.endpoint_id);
        if let Some(token) = keys.client_token {
            self.tokens.remove(&(keys.owner.clone(), token));
        }
        if let Some(owned) = self.owned.get_mut(&keys.owner) {
            owned.remove(&keys.position);
            if owned.is_empty() {
                self.owned.remove(&keys.owner);
            }
        }
    }

    /// The MicroVM with this id.
    pub(crate) fn get(&self, id: &str) -> Option<&Microvm> {
        self.microvms.get(id)
    }

    /// Id of the MicroVM whose endpoint this is.
    pub(crate) fn endpoint(&self, endpoint_id: &str) -> Option<&String> {
        self.endpoints.get(endpoint_id)
    }

    /// The caller's MicroVM that was launched with this client token.
    pub(crate) fn launched_with(&self, caller: &Caller, client_token: &str) -> Option<&Microvm> {
        let id = self.tokens.get(&(owner_of(caller), client_token.to_owned()))?;
        self.microvms.get(id)
    }

    /// Every MicroVM.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Microvm> {
        self.microvms.values()
    }

    /// The caller's MicroVMs after a position, or all of them, newest first.
    pub(crate) fn owned_by(
        &self,
        caller: &Caller,
        after: Option<Position>,
    ) -> impl Iterator<Item = &Microvm> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.owned
            .get(&owner_of(caller))
            .into_iter()
            .flat_map(move |owned| owned.range((start.clone(), Bound::Unbounded)))
            .map(|(_, microvm)| microvm)
    }
}

/// The position of a MicroVM among its owner's.
pub(crate) fn position(record: &MicrovmRecord) -> Position {
    (i64::MAX - record.started_at.as_millis(), record.id.clone())
}

fn owner_of(caller: &Caller) -> Owner {
    (caller.account_id.clone(), caller.region.clone())
}

/// What a MicroVM is found by.
struct Keys {
    id: String,
    endpoint_id: String,
    owner: Owner,
    position: Position,
    client_token: Option<String>,
}

impl Keys {
    fn of(record: &MicrovmRecord) -> Keys {
        Keys {
            id: record.id.clone(),
            endpoint_id: record.endpoint_id.clone(),
            owner: (record.account.clone(), record.region.clone()),
            position: position(record),
            client_token: record.client_token.as_ref().map(|token| token.token().to_owned()),
        }
    }
}
