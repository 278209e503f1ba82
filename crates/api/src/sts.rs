//! `sts` in the query protocol: who a caller is, and temporary credentials of roles.

use std::time::Duration;

use hearth_iam::{Credentials, IssueError};
use hearth_wire::{ApiError, Call, ErrorKind, arn::RoleArn};
use http::{Request, Response};
use hyper::body::Incoming;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Body,
    answer::Protocol,
    router::{Router, Verified},
    scope::Scope,
};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// The least, the usual and the greatest life of a session.
const DURATION_SECONDS: (u64, u64, u64) = (900, 3600, 43_200);
/// Of a session that was itself opened from one.
const CHAINED_DURATION_SECONDS: u64 = 3600;
const MAX_POLICY_CHARACTERS: usize = 2048;

pub(crate) async fn handle(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Response<Body> {
    match call(router, scope, request, request_id).await {
        Ok(document) => Protocol::Query.response(200, document, request_id),
        Err(error) => Protocol::Query.error(&error, request_id),
    }
}

async fn call(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Result<String, ApiError> {
    let verified = router.verified(scope, request, request_id).await?;
    let parameters = Parameters::of(&verified);
    match parameters.get("Action") {
        // Whoever can sign may know who it is: no policy can take that away.
        Some("GetCallerIdentity") => caller_identity(router, &verified),
        Some("AssumeRole") => assume_role(router, &parameters, verified).await,
        other => Err(ApiError::new(
            ErrorKind::InvalidAction,
            format!(
                "Could not find operation {} for version 2011-06-15",
                other.unwrap_or("(none)")
            ),
        )),
    }
}

/// The parameters of the body, then those of the query.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(verified: &Verified) -> Parameters {
        let query = verified.parts.uri.query().unwrap_or_default();
        let pairs =
            |text: &str| serde_urlencoded::from_str::<Vec<(String, String)>>(text).unwrap_or_default();
        let mut all = pairs(&String::from_utf8_lossy(&verified.body));
        all.extend(pairs(query));
        Parameters(all)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| {
            let mut member = name.to_owned();
            member[..1].make_ascii_lowercase();
            ApiError::validation(format!(
                "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be \
                 null"
            ))
        })
    }
}

fn caller_identity(router: &Router, verified: &Verified) -> Result<String, ApiError> {
    verified.asks_for("sts", "GetCallerIdentity");
    let caller = &verified.caller;
    let token = verified.session_token.as_deref();
    let identity = router.services.iam.identify(&caller.access_key_id, token)?;
    let (arn, user_id) = (identity.arn(&caller.partition), identity.user_id());
    let account = &caller.account_id;
    Ok(document(
        "GetCallerIdentity",
        &format!(
            "<Arn>{}</Arn><UserId>{}</UserId><Account>{account}</Account>",
            escaped(&arn),
            escaped(&user_id)
        ),
        &caller.request_id,
    ))
}

async fn assume_role(
    router: &Router,
    parameters: &Parameters,
    verified: Verified,
) -> Result<String, ApiError> {
    let role_arn = parameters.required("RoleArn")?.to_owned();
    let call = verified.call(hearth_wire::Request::Sts("AssumeRole".into(), role_arn.clone()));
    let outcome = match router.services.guard.admit(&call).await {
        Ok(()) => open_session(router, parameters, &role_arn, &call),
        Err(refusal) => Err(refusal),
    };
    let (status, error) = match &outcome {
        Ok(_) => (200, None),
        Err(error) => (error.status(), Some(error.kind.name())),
    };
    router.services.guard.ended(&call, status, error).await;
    Ok(document(
        "AssumeRole",
        &assumed(&outcome?),
        &call.caller.request_id,
    ))
}

fn open_session(
    router: &Router,
    parameters: &Parameters,
    role_arn: &str,
    call: &Call,
) -> Result<Credentials, ApiError> {
    let name = session_name(parameters.required("RoleSessionName")?)?;
    let seconds = duration(parameters.get("DurationSeconds"), call.session_token.is_some())?;
    let policy = parameters.get("Policy");
    if policy.is_some_and(|policy| policy.chars().count() > MAX_POLICY_CHARACTERS) {
        return Err(ApiError::validation(format!(
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less \
             than or equal to {MAX_POLICY_CHARACTERS}"
        )));
    }
    let role: RoleArn = role_arn
        .parse()
        .map_err(|_| ApiError::validation(format!("{role_arn} is invalid")))?;
    // A role trusts this service and the principals of its account.
    let denied = || {
        ApiError::access_denied(format!(
            "User is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
        ))
    };
    if role.account != call.caller.account_id {
        return Err(denied());
    }
    let iam = &router.services.iam;
    iam.open_session(role_arn, name, Duration::from_secs(seconds), policy)
        .map_err(|error| match error {
            IssueError::NoRole(_) | IssueError::Unknown(_) => denied(),
            IssueError::Policy(error) => ApiError::new(ErrorKind::MalformedPolicyDocument, error.to_string()),
            IssueError::Random(error) => {
                tracing::error!(%error, "no session could be opened");
                ApiError::internal()
            }
        })
}

fn session_name(name: &str) -> Result<&str, ApiError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if (2..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(ApiError::validation(format!(
        "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member must \
         satisfy regular expression pattern: [\\w+=,.@-]{{2,64}}"
    )))
}

fn duration(asked: Option<&str>, chained: bool) -> Result<u64, ApiError> {
    let (least, usual, most) = DURATION_SECONDS;
    let Some(asked) = asked else {
        return Ok(usual);
    };
    let bound = |side: &str, bound: u64| {
        ApiError::validation(format!(
            "1 validation error detected: Value '{asked}' at 'durationSeconds' failed to satisfy constraint: Member must \
             have value {side} than or equal to {bound}"
        ))
    };
    match asked.parse::<u64>() {
        Ok(seconds) if seconds < least => Err(bound("greater", least)),
        Ok(seconds) if seconds > most => Err(bound("less", most)),
        Ok(seconds) if chained && seconds > CHAINED_DURATION_SECONDS => Err(ApiError::validation(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        )),
        Ok(seconds) => Ok(seconds),
        Err(_) => Err(bound("greater", least)),
    }
}

fn assumed(credentials: &Credentials) -> String {
    let expires = OffsetDateTime::from_unix_timestamp(credentials.expires_at.as_millis().div_euclid(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_default();
    format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>",
        credentials.access_key_id,
        credentials.secret_access_key.0,
        credentials.session_token.0,
        escaped(&credentials.assumed_role_id),
        escaped(&credentials.assumed_role_arn),
    )
}

fn document(action: &str, result: &str, request_id: &str) -> String {
    format!(
        "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result><ResponseMetadata>\
         <RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// The error document of the query protocol, with the codes this service uses.
pub(crate) fn error_document(error: &ApiError, request_id: &str) -> String {
    let code = match error.kind {
        ErrorKind::InvalidSignature => "SignatureDoesNotMatch",
        ErrorKind::UnrecognizedClient => "InvalidClientTokenId",
        ErrorKind::InternalServer => "InternalFailure",
        ErrorKind::Validation => "ValidationError",
        kind => kind.name().trim_end_matches("Exception"),
    };
    let fault = if error.status() < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let message = escaped(error.message.as_deref().unwrap_or_default());
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
}

fn escaped(text: &str) -> String {
    let printable: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    printable
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_break_out_of_its_document() {
        let error = ApiError::new(ErrorKind::InvalidAction, "</Message>&\u{0}");
        let document = error_document(&error, "r");
        assert!(
            document.contains("<Code>InvalidAction</Code><Message>&lt;/Message&gt;&amp; </Message>"),
            "{document}"
        );
    }

    #[test]
    fn sessions_last_as_long_as_they_may() {
        assert_eq!(duration(None, false), Ok(3600));
        assert_eq!(duration(Some("43200"), false), Ok(43_200));
        for (asked, chained) in [
            ("899", false),
            ("43201", false),
            ("3601", true),
            ("-1", false),
            ("x", false),
        ] {
            assert_eq!(duration(Some(asked), chained).expect_err(asked).status(), 400);
        }
    }

    #[test]
    fn a_session_name_cannot_be_anything() {
        assert!(session_name("a.b@c").is_ok());
        for wrong in ["", "a", "a b", "a/b", "<x>", &"a".repeat(65)] {
            assert_eq!(session_name(wrong).expect_err(wrong).status(), 400);
        }
    }
}
