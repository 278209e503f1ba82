//! What is written down: an hour of a subject.

use hearth_wire::types::Meters;
use serde::{Deserialize, Serialize};

use crate::Mark;

pub(crate) const HOUR_MS: i64 = 3_600_000;
/// Baseline memory that comes with one virtual CPU (spec section 10).
const MIB_PER_VCPU: f64 = 2048.0;

/// Whose usage it is: a MicroVM, or an image version when no MicroVM is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Twelve digits.
    pub account: String,
    /// The MicroVM.
    pub microvm_id: Option<String>,
    /// Its image.
    pub image_arn: String,
    /// Its image's version.
    pub image_version: String,
    /// Baseline memory.
    pub memory_mib: u64,
}

impl Subject {
    /// What tells it from every other.
    pub(crate) fn key(&self) -> String {
        match &self.microvm_id {
            Some(id) => id.clone(),
            None => format!("{}:{}", self.image_arn, self.image_version),
        }
    }

    pub(crate) fn baseline_vcpus(&self) -> f64 {
        self.memory_mib as f64 / MIB_PER_VCPU
    }

    pub(crate) fn baseline_gb(&self) -> f64 {
        self.memory_mib as f64 / 1024.0
    }
}

/// An hour of a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Hours since the epoch.
    pub hour: i64,
    pub subject: Subject,
    pub meters: Meters,
    /// How far the MicroVM has been metered.
    pub mark: Option<Mark>,
}

impl Record {
    pub(crate) fn new(subject: &Subject, hour: i64) -> Record {
        Record {
            hour,
            subject: subject.clone(),
            meters: Meters::default(),
            mark: None,
        }
    }

    /// Ids sort by the hour.
    pub(crate) fn id(&self) -> String {
        format!(
            "{}{}/{}",
            Record::first_id(self.hour),
            self.subject.account,
            self.subject.key()
        )
    }

    /// No id of this hour sorts before it, and none of an earlier one after it.
    pub(crate) fn first_id(hour: i64) -> String {
        format!("{hour:020}/")
    }
}
