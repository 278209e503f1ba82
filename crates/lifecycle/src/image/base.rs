//! The managed base image's versions and what may still be done with each (spec section 5). Pure.

use hearth_wire::{ApiError, arn::ImageArn, enums::ManagedMicrovmImageVersionStatus as Status, texts};

/// The one managed base image.
pub(crate) const BASE_NAME: &str = "al2023-1";

/// One version of the managed base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseVersion {
    /// A bare integer, such as `1`.
    pub version: String,
    /// How far it has come on its way out.
    pub status: Status,
}

impl BaseVersion {
    /// Whether images may be built on it.
    pub(crate) fn builds(&self) -> bool {
        matches!(self.status, Status::Available | Status::Deprecated)
    }

    /// Whether MicroVMs of images built on it may be launched.
    pub(crate) fn runs(&self) -> bool {
        self.builds() || self.status == Status::Expiring
    }
}

/// The version as records and answers spell it, `1.0`, that a build asking for `wanted` gets: the newest available one
/// when it asks for none. Both spellings, `1` and `1.0`, are understood.
pub(crate) fn for_build(
    versions: &[BaseVersion],
    base: &ImageArn,
    wanted: Option<&str>,
) -> Result<String, ApiError> {
    let found = match wanted {
        _ if base.name != BASE_NAME => None,
        Some(wanted) => find(versions, wanted).filter(|version| version.builds()),
        None => {
            let available = versions
                .iter()
                .find(|version| version.status == Status::Available);
            available.or_else(|| versions.iter().find(|version| version.builds()))
        }
    };
    let newest = || versions.first().map_or("1", |version| version.version.as_str());
    found
        .map(|version| format!("{}.0", version.version))
        .ok_or_else(|| texts::unknown_base_version(base, wanted.unwrap_or_else(newest)))
}

/// Whether MicroVMs may be launched from an image version built on this base version.
pub(crate) fn may_run(versions: &[BaseVersion], built_on: &str) -> bool {
    find(versions, built_on).is_some_and(BaseVersion::runs)
}

fn find<'a>(versions: &'a [BaseVersion], spelling: &str) -> Option<&'a BaseVersion> {
    let bare = spelling.strip_suffix(".0").unwrap_or(spelling);
    versions.iter().find(|version| version.version == bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arn(name: &str) -> ImageArn {
        format!("arn:aws:lambda:eu-west-1:aws:microvm-image:{name}")
            .parse()
            .expect("ARN")
    }

    fn versions(statuses: [Status; 3]) -> Vec<BaseVersion> {
        let numbers = ["2", "1", "0"].into_iter().zip(statuses);
        numbers
            .map(|(version, status)| BaseVersion {
                version: version.into(),
                status,
            })
            .collect()
    }

    #[test]
    fn a_build_that_names_no_version_gets_the_newest_available() {
        for (statuses, given) in [
            ([Status::Available, Status::Available, Status::Available], "2.0"),
            ([Status::Recalled, Status::Deprecated, Status::Available], "0.0"),
            ([Status::Recalled, Status::Deprecated, Status::Expired], "1.0"),
        ] {
            assert_eq!(
                for_build(&versions(statuses), &arn(BASE_NAME), None).as_deref(),
                Ok(given)
            );
        }
    }

    #[test]
    fn both_spellings_are_taken_and_what_cannot_be_built_on_is_named() {
        let versions = versions([Status::Expiring, Status::Deprecated, Status::Available]);
        for (wanted, given) in [("1", "1.0"), ("1.0", "1.0"), ("0", "0.0")] {
            assert_eq!(
                for_build(&versions, &arn(BASE_NAME), Some(wanted)).as_deref(),
                Ok(given)
            );
        }
        for wanted in ["999", "2", "2.0", "", "1.1"] {
            let error = for_build(&versions, &arn(BASE_NAME), Some(wanted)).expect_err(wanted);
            let text = error.message.expect("text");
            assert!(
                text.ends_with(&format!("version {wanted} is available")),
                "{text}"
            );
        }
        assert!(for_build(&versions, &arn("other"), None).is_err());
    }

    #[test]
    fn what_expires_still_runs_and_what_is_expired_or_recalled_does_not() {
        let versions = versions([Status::Expiring, Status::Expired, Status::Recalled]);
        let runs: Vec<bool> = ["2.0", "1.0", "0.0", "9.0"]
            .map(|version| may_run(&versions, version))
            .into();
        assert_eq!(runs, [true, false, false, false]);
    }
}
