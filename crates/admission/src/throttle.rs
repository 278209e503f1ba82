//! Rates of spec section 29: a token bucket for each account and operation, whose burst is its rate.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use hearth_wire::{ApiError, Call, ErrorKind, Request};
use serde::Deserialize;

/// Calls a second, by operation; 0 is no limit, and so is an operation that is not named. Read from settings, those that
/// are named replace those of [`Rates::default`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, u32>")]
pub struct Rates(pub BTreeMap<String, u32>);

impl From<BTreeMap<String, u32>> for Rates {
    fn from(named: BTreeMap<String, u32>) -> Rates {
        Rates::default().overridden_by(&named)
    }
}

impl Default for Rates {
    fn default() -> Rates {
        let rates = [
            ("RunMicrovm", 5),
            ("ResumeMicrovm", 5),
            ("SuspendMicrovm", 2),
            ("TerminateMicrovm", 10),
            ("GetMicrovm", 100),
            ("CreateMicrovmAuthToken", 50),
            ("CreateMicrovmShellAuthToken", 5),
        ];
        Rates(rates.map(|(name, rate)| (name.to_owned(), rate)).into())
    }
}

impl Rates {
    /// These rates, with those of `others` instead where they name one.
    #[must_use]
    pub fn overridden_by(mut self, others: &BTreeMap<String, u32>) -> Rates {
        self.0
            .extend(others.iter().map(|(name, rate)| (name.clone(), *rate)));
        self
    }
}

type Bucket = Arc<DefaultDirectRateLimiter>;

/// The buckets of every account.
pub struct Throttle {
    rates: Rates,
    accounts: HashMap<String, Rates>,
    buckets: Mutex<HashMap<(String, String), Bucket>>,
}

impl Throttle {
    /// `rates` for every account but for those that `accounts` names; theirs must be complete.
    pub fn new(rates: Rates, accounts: HashMap<String, Rates>) -> Throttle {
        Throttle {
            rates,
            accounts,
            buckets: Mutex::default(),
        }
    }

    /// Takes a token for a call, or answers 429 with the time until there is one.
    pub fn take(&self, call: &Call) -> Result<(), ApiError> {
        let Request::Operation(operation, _) = &call.request else {
            return Ok(());
        };
        let Some(bucket) = self.bucket(&call.caller.account_id, operation.name()) else {
            return Ok(());
        };
        bucket.check().map_err(|refusal| {
            let wait = refusal.wait_time_from(governor::clock::DefaultClock::default().now());
            let seconds = u32::try_from(wait.as_secs())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            let kind = match operation.route().1.starts_with("/2025-") {
                true => ErrorKind::Throttling,
                // Tags and connectors have a shape of their own.
                false => ErrorKind::TooManyRequests,
            };
            ApiError::new(kind, "Rate exceeded").retry_after(seconds)
        })
    }

    fn bucket(&self, account: &str, operation: &str) -> Option<Bucket> {
        let rates = self.accounts.get(account).unwrap_or(&self.rates);
        let rate = NonZeroU32::new(*rates.0.get(operation)?)?;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets
            .entry((account.to_owned(), operation.to_owned()))
            .or_insert_with(|| Arc::new(RateLimiter::direct(quota(rate))));
        Some(bucket.clone())
    }
}

fn quota(rate: NonZeroU32) -> Quota {
    Quota::with_period(Duration::from_secs(1) / rate.get())
        .map_or(Quota::per_second(rate), |quota| quota.allow_burst(rate))
}

#[cfg(test)]
mod tests {
    use hearth_wire::{Caller, Operation};
    use serde_json::Value;

    use super::*;

    fn call(account: &str, operation: Operation) -> Call {
        Call {
            caller: Caller {
                account_id: account.into(),
                region: "us-east-1".into(),
                partition: "aws".into(),
                access_key_id: "AKIA".into(),
                request_id: "r".into(),
            },
            session_token: None,
            source: [127, 0, 0, 1].into(),
            user_agent: None,
            request: Request::Operation(operation, Value::Null),
        }
    }

    fn rates(pairs: &[(&str, u32)]) -> Rates {
        Rates(
            pairs
                .iter()
                .map(|(name, rate)| ((*name).to_owned(), *rate))
                .collect(),
        )
    }

    #[test]
    fn a_bucket_empties_for_its_account_and_operation_alone() {
        let throttle = Throttle::new(rates(&[("RunMicrovm", 1), ("GetMicrovm", 1)]), HashMap::new());
        let run = call("1", Operation::RunMicrovm);
        assert_eq!(throttle.take(&run), Ok(()));
        let refused = (0..50).find_map(|_| throttle.take(&run).err()).expect("refused");
        assert_eq!((refused.kind, refused.status()), (ErrorKind::Throttling, 429));
        assert_eq!(refused.message.as_deref(), Some("Rate exceeded"));
        assert_eq!(refused.retry_after_seconds, Some(1));
        assert_eq!(throttle.take(&call("1", Operation::GetMicrovm)), Ok(()));
        assert_eq!(throttle.take(&call("2", Operation::RunMicrovm)), Ok(()));
    }

    #[test]
    fn what_has_no_rate_or_rate_zero_is_never_refused() {
        let throttle = Throttle::new(rates(&[("RunMicrovm", 0)]), HashMap::new());
        for operation in [Operation::RunMicrovm, Operation::ListMicrovms] {
            assert!((0..1000).all(|_| throttle.take(&call("1", operation)).is_ok()));
        }
    }

    #[test]
    fn an_account_may_have_rates_of_its_own() {
        let own = Rates::default().overridden_by(&rates(&[("SuspendMicrovm", 0)]).0);
        assert_eq!(own.0["RunMicrovm"], 5);
        let throttle = Throttle::new(Rates::default(), HashMap::from([("1".to_owned(), own)]));
        let admitted = |account| {
            let suspend = call(account, Operation::SuspendMicrovm);
            (0..1000).filter(|_| throttle.take(&suspend).is_ok()).count()
        };
        assert_eq!(admitted("1"), 1000);
        assert!(admitted("2") < 1000);
    }
}
