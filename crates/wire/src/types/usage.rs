use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Our own: what the MicroVMs and image versions of an account have used, to whole hours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetUsageRequest {
    pub account: Option<String>,
    /// Epoch seconds; the first hour that is kept when absent.
    pub from: Option<i64>,
    /// Epoch seconds; now when absent.
    pub to: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetUsageResponse {
    pub account: String,
    pub from: Timestamp,
    pub to: Timestamp,
    pub items: Vec<UsageItem>,
}

/// Of a MicroVM, or of an image version as such when `microvmId` is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageItem {
    pub microvm_id: Option<String>,
    pub image_arn: String,
    pub image_version: String,
    /// The baseline.
    pub memory_in_mib: u64,
    #[serde(flatten)]
    pub meters: Meters,
}

/// The meters of spec section 30.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meters {
    /// Seconds in each state of the API.
    pub seconds_by_state: BTreeMap<String, f64>,
    pub baseline_vcpu_seconds: f64,
    pub vcpu_seconds_above_baseline: f64,
    pub baseline_memory_gb_seconds: f64,
    pub memory_gb_seconds_above_baseline: f64,
    /// By suspends, and by the build of an image version.
    pub snapshot_written_bytes: u64,
    /// By launches and resumes.
    pub snapshot_read_bytes: u64,
    pub snapshot_stored_gb_hours: f64,
    /// From clients to the application.
    pub proxy_received_bytes: u64,
    /// From the application to clients.
    pub proxy_sent_bytes: u64,
}

impl Meters {
    /// Adds another hour of the same.
    pub fn add(&mut self, other: &Meters) {
        for (state, seconds) in &other.seconds_by_state {
            *self.seconds_by_state.entry(state.clone()).or_default() += seconds;
        }
        self.baseline_vcpu_seconds += other.baseline_vcpu_seconds;
        self.vcpu_seconds_above_baseline += other.vcpu_seconds_above_baseline;
        self.baseline_memory_gb_seconds += other.baseline_memory_gb_seconds;
        self.memory_gb_seconds_above_baseline += other.memory_gb_seconds_above_baseline;
        self.snapshot_written_bytes += other.snapshot_written_bytes;
        self.snapshot_read_bytes += other.snapshot_read_bytes;
        self.snapshot_stored_gb_hours += other.snapshot_stored_gb_hours;
        self.proxy_received_bytes += other.proxy_received_bytes;
        self.proxy_sent_bytes += other.proxy_sent_bytes;
    }
}
