//! The names below `/latest` and what stands there (spec section 23). `hearth/` is our own.

use crate::{ApiAccess, Lease, Subject};

/// The one entry of `iam/security-credentials/`, whatever the role's name is.
const ROLE: &str = "execution_role";

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// The names in it, those of directories with a slash.
    Directory(Vec<&'static str>),
    Text(String),
    /// The credentials of this role.
    Credentials(String),
}

/// What stands at a path, whose segments are given; a final slash makes no difference.
pub(crate) fn find(
    path: &[&str],
    subject: &Subject,
    api: &ApiAccess,
    lease: Option<&dyn Lease>,
) -> Option<Node> {
    let role = subject.role_arn.as_ref();
    let directory = |names: &[&'static str]| Some(Node::Directory(names.to_vec()));
    let text = |text: &str| Some(Node::Text(text.to_owned()));
    match path {
        [] => directory(&["latest"]),
        ["latest"] => directory(&["meta-data/"]),
        ["latest", "meta-data"] if role.is_some() => directory(&["hearth/", "iam/", "placement/", "tags/"]),
        ["latest", "meta-data"] => directory(&["hearth/", "placement/", "tags/"]),
        ["latest", "meta-data", rest @ ..] => match (rest, role) {
            (["placement"], _) => directory(&["availability-zone-id", "region"]),
            (["placement", "region"], _) => text(&subject.region),
            (["placement", "availability-zone-id"], _) => Some(Node::Text(zone_id(&subject.region))),
            // MicroVMs have no tags (spec section 28).
            (["tags"], _) => directory(&[]),
            (["hearth"], _) => {
                let api: &[_] = if role.is_some() { &["ca", "endpoint"] } else { &[] };
                let lease: &[_] = if lease.is_some() { &["lease"] } else { &[] };
                directory(&[api, lease, &["microvm-id"]].concat())
            }
            // Seconds that are left of it.
            (["hearth", "lease"], _) => {
                let left = lease?.left().as_millis().div_ceil(1000);
                Some(Node::Text(left.to_string()))
            }
            (["hearth", "microvm-id"], _) => text(&subject.id),
            (["hearth", "ca"], Some(_)) => text(&api.ca_pem),
            (["hearth", "endpoint"], Some(_)) => text(&api.url),
            (["iam"], Some(_)) => directory(&["security-credentials/"]),
            (["iam", "security-credentials"], Some(_)) => directory(&[ROLE]),
            (["iam", "security-credentials", name], Some(role)) if *name == ROLE => {
                Some(Node::Credentials(role.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The id of a region's one zone, made as AWS makes them: `us-east-1` has `use1-az1`.
fn zone_id(region: &str) -> String {
    let parts: Vec<&str> = region.split('-').collect();
    let short = match parts.as_slice() {
        [area, direction, number] => {
            let direction = direction
                .replace("north", "n")
                .replace("south", "s")
                .replace("east", "e")
                .replace("west", "w")
                .replace("central", "c");
            format!("{area}{direction}{number}")
        }
        _ => parts.concat(),
    };
    format!("{short}-az1")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Held;

    impl Lease for Held {
        fn take(&self, _: std::time::Duration) {}

        fn left(&self) -> std::time::Duration {
            std::time::Duration::from_millis(1500)
        }
    }

    #[test]
    fn a_lease_is_told_in_whole_seconds() {
        let path = ["latest", "meta-data", "hearth", "lease"];
        let node = find(&path, &subject(None), &api(), Some(&Held));
        assert_eq!(node, Some(Node::Text("2".into())));
        assert_eq!(find(&path, &subject(None), &api(), None), None);
    }

    fn api() -> ApiAccess {
        ApiAccess {
            address: ([127, 0, 0, 1], 1).into(),
            url: "https://169.254.169.253".into(),
            ca_pem: "PEM".into(),
        }
    }

    fn subject(role: Option<&str>) -> Subject {
        Subject {
            id: "microvm-1".into(),
            region: "ap-southeast-2".into(),
            role_arn: role.map(str::to_owned),
        }
    }

    fn at(path: &str, subject: &Subject) -> Option<Node> {
        find(&path.split('/').collect::<Vec<_>>(), subject, &api(), None)
    }

    #[test]
    fn every_name_of_a_directory_leads_somewhere() {
        fn walk(path: &[&str], subject: &Subject, lease: Option<&dyn Lease>) -> usize {
            match find(path, subject, &api(), lease)
                .unwrap_or_else(|| panic!("{path:?} is listed and not there"))
            {
                Node::Directory(names) => names
                    .iter()
                    .map(|name| walk(&[path, &[name.trim_end_matches('/')]].concat(), subject, lease))
                    .sum(),
                Node::Text(_) | Node::Credentials(_) => 1,
            }
        }
        assert_eq!(walk(&[], &subject(Some("role")), None), 6);
        assert_eq!(walk(&[], &subject(None), None), 3);
        assert_eq!(walk(&[], &subject(None), Some(&Held)), 4);
    }

    #[test]
    fn without_a_role_there_are_no_credentials_and_no_apis() {
        for path in [
            "iam",
            "iam/security-credentials/execution_role",
            "hearth/ca",
            "hearth/endpoint",
        ] {
            let path = format!("latest/meta-data/{path}");
            assert_eq!(at(&path, &subject(None)), None, "{path}");
            assert!(at(&path, &subject(Some("role"))).is_some(), "{path}");
        }
    }

    #[test]
    fn zones_are_named_after_their_region() {
        for (region, zone) in [
            ("us-east-1", "use1-az1"),
            ("ap-southeast-2", "apse2-az1"),
            ("eu-central-1", "euc1-az1"),
            ("home", "home-az1"),
        ] {
            assert_eq!(zone_id(region), zone);
        }
    }
}
