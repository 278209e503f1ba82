//! Keys, roles, sessions and the question whether a call may go on, over a real database.

use std::{path::Path, sync::Arc, time::Duration};

use hearth_iam::{Authorizer, CredentialIssuer, Iam, ImageOf, SessionKey, Settings};
use hearth_state::State;
use hearth_wire::{ApiError, Call, Caller, ErrorKind, Operation, Request, Sensitive};
use serde_json::{Value, json};

const ME: &str = "111122223333";
const OTHER: &str = "444455556666";
const ROLE: &str = "arn:aws:iam::111122223333:role/work";

async fn open(directory: &Path, strict_roles: bool) -> Iam {
    let state = State::open(&directory.join("state.db"))
        .await
        .expect("a database");
    let key = SessionKey::new(&[1; 32]).expect("a key");
    Iam::open(state, key, Settings { strict_roles }, ME)
        .await
        .expect("opens")
}

struct Images;

impl ImageOf for Images {
    fn image_of(&self, account: &str, microvm_id: &str) -> Option<String> {
        (account == ME && microvm_id == "microvm-1").then(|| image("demo"))
    }
}

fn image(name: &str) -> String {
    format!("arn:aws:lambda:us-east-1:{ME}:microvm-image:{name}")
}

fn call(key: &str, token: Option<&Sensitive>, request: Request) -> Call {
    Call {
        caller: Caller {
            account_id: ME.into(),
            region: "us-east-1".into(),
            partition: "aws".into(),
            access_key_id: key.into(),
            request_id: "r".into(),
        },
        session_token: token.cloned(),
        source: [127, 0, 0, 1].into(),
        user_agent: None,
        request,
    }
}

fn operation(operation: Operation, members: Value) -> Request {
    Request::Operation(operation, members)
}

fn policy(statements: Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

async fn key_with(iam: &Iam, statements: Value) -> String {
    let made = iam
        .create_key(ME, Some("ann"), false, Some(&policy(statements)))
        .await;
    made.expect("a key").access_key_id
}

fn ask(iam: &Iam, key: &str, request: Request) -> Result<(), ApiError> {
    let authorizer = Authorizer::new(iam.clone(), Arc::new(Images));
    authorizer.authorize(&call(key, None, request)).map(drop)
}

#[tokio::test]
async fn the_first_key_may_do_everything_and_one_without_a_policy_nothing() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let first = iam.first_administrator().expect("the first key").access_key_id;
    let list = || operation(Operation::ListMicrovms, json!({}));
    let create_key = operation(
        Operation::CreateKey,
        json!({"account": OTHER, "administrator": true}),
    );
    assert_eq!(ask(&iam, &first, list()), Ok(()));
    assert_eq!(ask(&iam, &first, create_key), Ok(()));
    let bare = iam.create_key(ME, Some("bob"), false, None).await.expect("a key");
    let refused = ask(&iam, &bare.access_key_id, list()).expect_err("refused");
    assert_eq!(
        (refused.status(), refused.body()),
        (
            403,
            json!({"Message": format!("User: arn:aws:iam::{ME}:user/bob is not authorized to perform: \
                lambda:ListMicrovms on resource: * because no identity-based policy allows the \
                lambda:ListMicrovms action")})
        )
    );
}

#[tokio::test]
async fn a_microvm_is_asked_for_by_its_image() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let key = key_with(
        &iam,
        json!({"Effect": "Allow", "Action": "lambda:*", "Resource": image("demo")}),
    )
    .await;
    let get = |id: &str| operation(Operation::GetMicrovm, json!({ "microvmIdentifier": id }));
    assert_eq!(ask(&iam, &key, get("microvm-1")), Ok(()));
    assert_eq!(
        ask(&iam, &key, get("microvm-2")).expect_err("unknown").status(),
        403
    );
    let other = operation(
        Operation::GetMicrovmImage,
        json!({ "imageIdentifier": image("other") }),
    );
    assert_eq!(ask(&iam, &key, other).expect_err("another image").status(), 403);
}

#[tokio::test]
async fn roles_and_connectors_are_passed_only_with_permission() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let run = json!({"imageIdentifier": image("demo"), "executionRoleArn": ROLE});
    let mut statements = vec![json!({"Effect": "Allow", "Action": "lambda:RunMicrovm", "Resource": "*"})];
    for missing in ["iam:PassRole", "lambda:PassNetworkConnector"] {
        let key = key_with(&iam, json!(statements)).await;
        let refused = ask(&iam, &key, operation(Operation::RunMicrovm, run.clone())).expect_err(missing);
        let message = refused.message.expect("a message");
        assert!(
            message.contains(&format!("perform: {missing} on resource: arn:")),
            "{message}"
        );
        statements.push(json!({"Effect": "Allow", "Action": missing, "Resource": "*"}));
    }
    let key = key_with(&iam, json!(statements)).await;
    assert_eq!(
        ask(&iam, &key, operation(Operation::RunMicrovm, run.clone())),
        Ok(())
    );

    let mut foreign = run.clone();
    foreign["executionRoleArn"] = ROLE.replace(ME, OTHER).into();
    let first = iam.first_administrator().expect("the first key").access_key_id;
    for key in [&key, &first] {
        let refused = ask(&iam, key, operation(Operation::RunMicrovm, foreign.clone())).expect_err("foreign");
        assert!(refused.message.expect("a message").contains("another account"));
    }
}

#[tokio::test]
async fn only_an_administrator_manages_other_accounts() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let key = key_with(&iam, json!({"Effect": "Allow", "Action": "*", "Resource": "*"})).await;
    assert_eq!(
        ask(
            &iam,
            &key,
            operation(Operation::CreateKey, json!({"account": ME}))
        ),
        Ok(())
    );
    for more in [json!({"account": OTHER}), json!({"administrator": true})] {
        let refused = ask(&iam, &key, operation(Operation::CreateKey, more)).expect_err("refused");
        assert!(
            refused
                .message
                .expect("a message")
                .contains("only an administrator")
        );
    }
}

#[tokio::test]
async fn keys_survive_a_restart_and_revoked_ones_do_not() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let first = iam.first_administrator().expect("the first key");
    let made = iam.create_key(OTHER, None, false, None).await.expect("a key");
    let revoked = iam.create_key(OTHER, None, false, None).await.expect("a key");
    assert!(
        iam.revoke_key(&revoked.access_key_id, Some(ME)).await.is_err(),
        "of another account"
    );
    iam.revoke_key(&revoked.access_key_id, Some(OTHER))
        .await
        .expect("revoked");
    let unknown = iam.identify(&revoked.access_key_id, None).expect_err("revoked");
    assert_eq!(unknown.kind, ErrorKind::UnrecognizedClient);
    let last = iam
        .revoke_key(&first.access_key_id, None)
        .await
        .expect_err("the last administrator");
    assert!(last.to_string().contains("last administrator"), "{last}");
    drop(iam);

    let iam = open(directory.path(), false).await;
    assert_eq!(iam.first_administrator(), Some(first));
    assert_eq!(iam.keys(Some(OTHER)), [made]);
}

#[tokio::test]
async fn a_session_may_what_its_role_and_its_own_policy_both_allow() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let role = policy(json!({"Effect": "Allow", "Action": ["lambda:Get*", "lambda:List*"], "Resource": "*"}));
    iam.create_role(ME, "work", &role).await.expect("a role");
    let bound = policy(json!({"Effect": "Allow", "Action": ["lambda:Get*", "lambda:Run*"], "Resource": "*"}));
    let session = iam
        .open_session(ROLE, "night", Duration::from_secs(900), Some(&bound))
        .expect("a session");
    let iam = open(directory.path(), false).await;
    let authorizer = Authorizer::new(iam.clone(), Arc::new(Images));
    let ask = |request: Request| {
        authorizer
            .authorize(&call(
                &session.access_key_id,
                Some(&session.session_token),
                request,
            ))
            .map(|identity| identity.arn("aws"))
    };
    let get = || operation(Operation::GetMicrovm, json!({"microvmIdentifier": "microvm-1"}));
    assert_eq!(
        ask(get()),
        Ok(format!("arn:aws:sts::{ME}:assumed-role/work/night"))
    );
    for beyond in [Operation::ListMicrovms, Operation::RunMicrovm] {
        assert_eq!(
            ask(operation(beyond, json!({}))).expect_err("beyond").status(),
            403
        );
    }
    let without = iam.identify(&session.access_key_id, None).expect_err("no token");
    assert_eq!(without.kind, ErrorKind::UnrecognizedClient);

    iam.remove_role(ME, "work").await.expect("removed");
    assert_eq!(ask(get()).expect_err("no role any more").status(), 403);
    iam.create_role(ME, "work", &role).await.expect("another role");
    assert_eq!(ask(get()).expect_err("of the former role").status(), 403);
}

#[tokio::test]
async fn a_role_that_was_never_created_reads_artifacts_and_writes_logs() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let may = |iam: &Iam, action: &str| iam.role_may(ME, ROLE, action, "arn:aws:s3:::b/k", &[]);
    assert!(may(&iam, "s3:GetObject") && may(&iam, "logs:PutLogEvents"));
    assert!(!may(&iam, "s3:PutObject") && !may(&iam, "lambda:RunMicrovm"));
    assert!(
        !iam.role_may(OTHER, ROLE, "s3:GetObject", "*", &[]),
        "of another account"
    );
    assert!(iam.issue(ROLE, "m", Duration::from_secs(900)).await.is_ok());

    iam.create_role(ME, "work", &policy(json!([])))
        .await
        .expect("a role that may nothing");
    assert!(!may(&iam, "s3:GetObject"));
    iam.remove_role(ME, "work").await.expect("removed");
    assert!(
        !may(&iam, "s3:GetObject"),
        "a removed role is not one that never was"
    );
    assert!(iam.issue(ROLE, "m", Duration::from_secs(900)).await.is_err());

    let strict = open(directory.path(), true).await;
    assert!(!strict.role_may(
        ME,
        "arn:aws:iam::111122223333:role/never",
        "s3:GetObject",
        "*",
        &[]
    ));
}

#[tokio::test]
async fn logs_are_asked_for_by_group_and_stream() {
    let directory = tempfile::tempdir().expect("temp dir");
    let iam = open(directory.path(), false).await;
    let group = format!("arn:aws:logs:us-east-1:{ME}:log-group:/app");
    let read = |resource: String| json!({"Effect": "Allow", "Action": "logs:*", "Resource": resource});
    let filter = || Request::Logs("FilterLogEvents".into(), json!({"logGroupName": "/app"}));
    let get = || {
        Request::Logs(
            "GetLogEvents".into(),
            json!({"logGroupIdentifier": group, "logStreamName": "s"}),
        )
    };
    let whole = key_with(&iam, read(format!("{group}:*"))).await;
    assert_eq!(
        (ask(&iam, &whole, filter()), ask(&iam, &whole, get())),
        (Ok(()), Ok(()))
    );
    let bare = key_with(&iam, read(group.clone())).await;
    assert_eq!(ask(&iam, &bare, filter()), Ok(()));
    assert!(ask(&iam, &bare, get()).is_err());
}
