use hearth_wire::{ApiError, Caller, Timestamp, types::*};

use super::internal;
use crate::Service;

impl Service {
    pub(crate) async fn get_usage(
        &self,
        caller: &Caller,
        request: GetUsageRequest,
    ) -> Result<GetUsageResponse, ApiError> {
        let account = request.account.unwrap_or_else(|| caller.account_id.clone());
        let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        let from = time(request.from.unwrap_or_default());
        let to = request.to.map_or_else(Timestamp::now, time);
        self.meter_everything().await;
        let report = self.node().usage.report(&account, from, to).await;
        let items = report
            .map_err(internal)?
            .into_iter()
            .map(|(subject, meters)| UsageItem {
                microvm_id: subject.microvm_id,
                image_arn: subject.image_arn,
                image_version: subject.image_version,
                memory_in_mib: subject.memory_mib,
                meters,
            });
        Ok(GetUsageResponse {
            items: items.collect(),
            account,
            from,
            to,
        })
    }
}
