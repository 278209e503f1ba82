use std::{fmt, str::FromStr};

use super::{Fields, MalformedArn, is_account, is_name};
use crate::{ApiError, Caller, texts};

/// `arn:<partition>:lambda:<region>:<account>:microvm-image:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageArn {
    /// `aws`, `aws-cn`, ….
    pub partition: String,
    /// Region name.
    pub region: String,
    /// Twelve digits, or `aws` for a managed base image.
    pub account: String,
    /// The image's name.
    pub name: String,
}

/// What an image identifier turned out to be.
enum Identifier {
    Image(ImageArn),
    /// A well-formed ARN that names something else.
    Other,
}

impl ImageArn {
    /// The account segment of managed base images.
    pub const MANAGED_ACCOUNT: &str = "aws";

    /// The ARN of the caller's image called `name`.
    pub fn of(caller: &Caller, name: &str) -> Self {
        Self {
            partition: caller.partition.clone(),
            region: caller.region.clone(),
            account: caller.account_id.clone(),
            name: name.to_owned(),
        }
    }

    /// The ARN of the managed base image called `name` in the caller's region.
    pub fn managed(caller: &Caller, name: &str) -> Self {
        Self {
            account: Self::MANAGED_ACCOUNT.to_owned(),
            ..Self::of(caller, name)
        }
    }

    /// Whether this names a managed base image.
    pub fn is_managed(&self) -> bool {
        self.account == Self::MANAGED_ACCOUNT
    }

    /// The image an image operation names: 400 for what is no ARN, 403 for what is not the caller's.
    pub fn for_image_operation(identifier: &str, caller: &Caller) -> Result<Self, ApiError> {
        Self::identify(identifier)
            .map_err(|_| texts::invalid_arn(identifier))?
            .of_caller(identifier, caller)
    }

    /// The image RunMicrovm names: as [`Self::for_image_operation`], with RunMicrovm's own text.
    pub fn for_run(identifier: &str, caller: &Caller) -> Result<Self, ApiError> {
        Self::identify(identifier)
            .map_err(|malformed| ApiError::validation(malformed.to_string()))?
            .of_caller(identifier, caller)
    }

    /// The managed base image an operation names in the caller's region.
    pub fn for_managed(identifier: &str, caller: &Caller) -> Result<Self, ApiError> {
        match Self::identify(identifier).map_err(|_| texts::invalid_arn(identifier))? {
            Identifier::Image(arn) if arn.is_managed() && arn.is_local_to(caller) => Ok(arn),
            _ => Err(denied(identifier)),
        }
    }

    fn identify(identifier: &str) -> Result<Identifier, MalformedArn> {
        let fields = Fields::parse(identifier)?;
        let name = fields.resource.strip_prefix("microvm-image:");
        let account_is_plausible = is_account(fields.account) || fields.account == Self::MANAGED_ACCOUNT;
        Ok(match name {
            Some(name) if is_name(name) && fields.service == "lambda" && account_is_plausible => {
                Identifier::Image(Self {
                    partition: fields.partition.to_owned(),
                    region: fields.region.to_owned(),
                    account: fields.account.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Identifier::Other,
        })
    }

    fn is_local_to(&self, caller: &Caller) -> bool {
        self.region == caller.region && self.partition == caller.partition
    }
}

impl Identifier {
    fn of_caller(self, identifier: &str, caller: &Caller) -> Result<ImageArn, ApiError> {
        match self {
            Self::Image(arn) if arn.account == caller.account_id && arn.is_local_to(caller) => Ok(arn),
            _ => Err(denied(identifier)),
        }
    }
}

fn denied(identifier: &str) -> ApiError {
    ApiError::access_denied(format!(
        "The caller is not authorized to access the resource {identifier}"
    ))
}

impl fmt::Display for ImageArn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            region,
            account,
            name,
        } = self;
        write!(
            formatter,
            "arn:{partition}:lambda:{region}:{account}:microvm-image:{name}"
        )
    }
}

impl FromStr for ImageArn {
    type Err = MalformedArn;

    /// Reads back what `Display` wrote; use the `for_…` functions for input from callers.
    fn from_str(value: &str) -> Result<Self, MalformedArn> {
        match Self::identify(value)? {
            Identifier::Image(arn) => Ok(arn),
            Identifier::Other => Err(MalformedArn::Resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn caller() -> Caller {
        Caller {
            account_id: "111122223333".into(),
            region: "eu-west-1".into(),
            partition: "aws".into(),
            access_key_id: "AKIA".into(),
            request_id: "r".into(),
        }
    }

    const MINE: &str = "arn:aws:lambda:eu-west-1:111122223333:microvm-image:demo";

    #[test]
    fn the_callers_own_arn_is_accepted_by_every_operation() {
        let arn = ImageArn::for_image_operation(MINE, &caller()).expect("own image");
        assert_eq!(arn, ImageArn::of(&caller(), "demo"));
        assert_eq!(ImageArn::for_run(MINE, &caller()), Ok(arn));
    }

    #[test]
    fn a_bare_name_gets_the_text_of_its_operation() {
        let get = ImageArn::for_image_operation("demo", &caller()).expect_err("bare name");
        assert_eq!(
            (get.status(), get.message.as_deref()),
            (400, Some("Invalid ARN format: demo"))
        );
        let run = ImageArn::for_run("demo", &caller()).expect_err("bare name");
        assert_eq!(
            (run.status(), run.message.as_deref()),
            (400, Some("Malformed ARN - doesn't start with 'arn:'"))
        );
    }

    #[test]
    fn another_account_region_service_or_spelling_is_denied() {
        for other in [
            "arn:aws:lambda:eu-west-1:999922223333:microvm-image:demo",
            "arn:aws:lambda:us-east-1:111122223333:microvm-image:demo",
            "arn:aws-cn:lambda:eu-west-1:111122223333:microvm-image:demo",
            "arn:aws:lambda:eu-west-1:111122223333:microvm-image/demo",
            "arn:aws:lambda:eu-west-1:111122223333:microvm-image:demo:1.0",
            "arn:aws:lambda:eu-west-1:aws:microvm-image:al2023-1",
            "arn:aws:s3:eu-west-1:111122223333:microvm-image:demo",
        ] {
            for parse in [ImageArn::for_image_operation, ImageArn::for_run] {
                assert_eq!(
                    parse(other, &caller()).expect_err(other).kind,
                    ErrorKind::AccessDenied,
                    "{other}"
                );
            }
        }
    }

    #[test]
    fn a_managed_image_is_named_by_the_account_aws_and_the_callers_region() {
        let managed = ImageArn::managed(&caller(), "al2023-1");
        assert_eq!(
            managed.to_string(),
            "arn:aws:lambda:eu-west-1:aws:microvm-image:al2023-1"
        );
        assert_eq!(
            ImageArn::for_managed(&managed.to_string(), &caller()),
            Ok(managed)
        );
        assert_eq!(
            ImageArn::for_managed(MINE, &caller())
                .expect_err("own image")
                .status(),
            403
        );
        assert_eq!(
            ImageArn::for_managed("al2023-1", &caller())
                .expect_err("bare name")
                .status(),
            400
        );
    }

    proptest! {
        #[test]
        fn an_arn_reads_back_as_itself(
            partition in "aws(-cn|-us-gov)?", region in "[a-z]{2}-[a-z]{4,9}-[1-9]", account in "[0-9]{12}",
            name in "[a-zA-Z0-9_-]{1,64}",
        ) {
            let arn = ImageArn { partition, region, account, name };
            prop_assert_eq!(arn.to_string().parse::<ImageArn>(), Ok(arn));
        }

        #[test]
        fn whatever_parses_displays_as_it_came(value in "arn:[a-z:0-9-]{0,30}(lambda:)?.{0,40}") {
            if let Ok(arn) = value.parse::<ImageArn>() {
                prop_assert_eq!(arn.to_string(), value);
            }
        }

        #[test]
        fn no_identifier_gives_a_caller_another_accounts_image(value in "\\PC{0,80}") {
            if let Ok(arn) = ImageArn::for_run(&value, &caller()) {
                prop_assert_eq!(arn.account, caller().account_id);
            }
        }
    }
}
