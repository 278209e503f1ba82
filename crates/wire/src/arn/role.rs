use std::{fmt, str::FromStr};

use super::{Fields, MalformedArn, is_account};

/// `arn:<partition>:iam::<account>:role/<path and name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleArn {
    /// `aws`, `aws-cn`, ….
    pub partition: String,
    /// Twelve digits.
    pub account: String,
    /// Everything after `role/`.
    pub path_and_name: String,
}

impl RoleArn {
    /// The role's name without its path.
    pub fn name(&self) -> &str {
        self.path_and_name
            .rsplit('/')
            .next()
            .unwrap_or(&self.path_and_name)
    }
}

impl FromStr for RoleArn {
    type Err = MalformedArn;

    fn from_str(value: &str) -> Result<Self, MalformedArn> {
        let fields = Fields::parse(value)?;
        if fields.service != "iam" {
            return Err(MalformedArn::Service);
        }
        if !fields.region.is_empty() {
            return Err(MalformedArn::Region);
        }
        if !is_account(fields.account) {
            return Err(MalformedArn::Account);
        }
        let path_and_name = fields
            .resource
            .strip_prefix("role/")
            .ok_or(MalformedArn::Resource)?;
        if path_and_name.is_empty() || path_and_name.ends_with('/') {
            return Err(MalformedArn::Resource);
        }
        Ok(Self {
            partition: fields.partition.to_owned(),
            account: fields.account.to_owned(),
            path_and_name: path_and_name.to_owned(),
        })
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            account,
            path_and_name,
        } = self;
        write!(formatter, "arn:{partition}:iam::{account}:role/{path_and_name}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_role_has_a_path_and_a_name() {
        let role: RoleArn = "arn:aws:iam::111122223333:role/team/build".parse().expect("role");
        assert_eq!(
            (role.path_and_name.as_str(), role.name()),
            ("team/build", "build")
        );
    }

    #[test]
    fn what_is_no_role_is_refused() {
        for other in [
            "build",
            "arn:aws:iam::111122223333:user/build",
            "arn:aws:iam::1111:role/build",
            "arn:aws:lambda:us-east-1:111122223333:role/build",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(other.parse::<RoleArn>().is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_role_reads_back_as_itself(account in "[0-9]{12}", path_and_name in "([a-z]{1,8}/){0,2}[a-zA-Z0-9+=,.@_-]{1,64}") {
            let role = RoleArn { partition: "aws".into(), account, path_and_name };
            prop_assert_eq!(role.to_string().parse::<RoleArn>(), Ok(role));
        }
    }
}
