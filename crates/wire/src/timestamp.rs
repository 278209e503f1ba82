use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time with millisecond precision; on the wire a number of epoch seconds with fraction (spec 3.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    millis: i64,
}

impl Timestamp {
    /// The wall clock now.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self { millis }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.millis
    }

    /// Seconds since the epoch, with fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.millis as f64 / 1000.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis.saturating_sub(earlier.millis)).unwrap_or(0))
    }

    /// This time plus `duration`.
    pub fn plus(self, duration: Duration) -> Self {
        Self {
            millis: self
                .millis
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before the epoch become the epoch.
    fn from(time: SystemTime) -> Self {
        Self::default().plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Ok(Self {
            millis: (seconds * 1000.0).round() as i64,
        })
    }
}

/// The other wire form, which lambda-core has: an ISO-8601 string in UTC (spec 3.1).
pub(crate) mod iso8601 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};

    use super::Timestamp;

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.and_then(|time| {
            let nanoseconds = i128::from(time.millis) * 1_000_000;
            OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
                .ok()?
                .format(&Rfc3339)
                .ok()
        })
        .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
        let millis = time.unix_timestamp_nanos() / 1_000_000;
        Ok(Some(Timestamp::from_millis(
            i64::try_from(millis).map_err(D::Error::custom)?,
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_the_wire_to_the_millisecond(millis in 0i64..4_102_444_800_000) {
            let time = Timestamp::from_millis(millis);
            let wire = serde_json::to_string(&time).expect("serializes");
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&wire).expect("parses"), time);
        }
    }

    #[test]
    fn the_form_of_lambda_core_is_a_string_in_utc() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Shown(#[serde(with = "iso8601")] Option<Timestamp>);
        let shown = Shown(Some(Timestamp::from_millis(1_785_000_000_123)));
        let wire = serde_json::to_string(&shown).expect("serializes");
        assert_eq!(wire, "\"2026-07-25T17:20:00.123Z\"");
        assert_eq!(serde_json::from_str::<Shown>(&wire).expect("parses"), shown);
    }

    #[test]
    fn the_wire_form_is_a_plain_number_of_seconds() {
        let wire = serde_json::to_string(&Timestamp::from_millis(1_785_000_000_123)).expect("serializes");
        assert_eq!(wire, "1785000000.123");
    }
}
