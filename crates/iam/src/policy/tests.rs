use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const IMAGE: &str = "arn:aws:lambda:us-east-1:111122223333:microvm-image:demo";

fn policy(document: &Value) -> Policy {
    Policy::read(&document.to_string()).expect("a policy")
}

fn with_condition(condition: Value) -> Policy {
    policy(&json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "lambda:*", "Resource": "*", "Condition": condition}}))
}

fn context(pairs: &[(&str, &str)]) -> Context {
    let mut context = Context::default();
    for (key, value) in pairs {
        context.set(key, *value);
    }
    context
}

fn run(policy: &Policy, context: &Context) -> Decision {
    policy.decide("lambda:RunMicrovm", IMAGE, context)
}

#[test]
fn actions_match_in_any_case_and_resources_in_their_own() {
    let policy = policy(
        &json!({"Statement": [{"Effect": "Allow", "Action": ["Lambda:run*", "s3:Get?bject"],
        "Resource": "arn:aws:lambda:*:111122223333:microvm-image:d?mo"}]}),
    );
    let none = Context::default();
    assert_eq!(run(&policy, &none), Decision::Allow);
    assert_eq!(policy.decide("lambda:GetMicrovm", IMAGE, &none), Decision::Silent);
    assert_eq!(
        policy.decide("lambda:RunMicrovm", &IMAGE.replace("demo", "Demo"), &none),
        Decision::Silent
    );
}

#[test]
fn a_denial_wins_wherever_it_stands() {
    let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "NotAction": "lambda:Get*", "Resource": IMAGE});
    for statements in [json!([allow, deny]), json!([deny, allow])] {
        let policy = policy(&json!({ "Statement": statements }));
        assert_eq!(run(&policy, &Context::default()), Decision::Deny);
        assert_eq!(
            policy.decide("lambda:GetMicrovm", IMAGE, &Context::default()),
            Decision::Allow
        );
    }
}

#[test]
fn not_resource_leaves_out_what_it_names() {
    let policy = policy(&json!({"Statement": {"Effect": "Allow", "Action": "*", "NotResource": IMAGE}}));
    assert_eq!(run(&policy, &Context::default()), Decision::Silent);
    assert_eq!(
        policy.decide("lambda:ListMicrovms", "*", &Context::default()),
        Decision::Allow
    );
}

#[test]
fn variables_stand_for_the_callers_values_and_for_nothing_when_there_is_none() {
    let policy = policy(
        &json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*",
        "Resource": "arn:aws:lambda:*:*:microvm-image:${aws:username}"}}),
    );
    assert_eq!(
        run(&policy, &context(&[("aws:username", "demo")])),
        Decision::Allow
    );
    assert_eq!(run(&policy, &context(&[("aws:username", "*")])), Decision::Silent);
    assert_eq!(run(&policy, &Context::default()), Decision::Silent);
}

#[test]
fn each_operator_holds_where_it_should() {
    let cases = [
        (
            json!({"StringEquals": {"aws:username": ["eve", "ann"]}}),
            "aws:UserName",
            "ann",
            true,
        ),
        (
            json!({"StringEquals": {"aws:username": "a*"}}),
            "aws:username",
            "ann",
            false,
        ),
        (
            json!({"StringNotEquals": {"aws:username": ["eve", "ann"]}}),
            "aws:username",
            "ann",
            false,
        ),
        (
            json!({"StringEqualsIgnoreCase": {"aws:username": "ANN"}}),
            "aws:username",
            "ann",
            true,
        ),
        (
            json!({"StringLike": {"aws:username": "a?n*"}}),
            "aws:username",
            "ann",
            true,
        ),
        (
            json!({"StringNotLike": {"aws:username": "a*"}}),
            "aws:username",
            "ann",
            false,
        ),
        (json!({"NumericLessThan": {"n": 10}}), "n", "9.5", true),
        (json!({"NumericGreaterThanEquals": {"n": "10"}}), "n", "9", false),
        (json!({"NumericNotEquals": {"n": "10"}}), "n", "10.0", false),
        (
            json!({"Bool": {"aws:SecureTransport": true}}),
            "aws:securetransport",
            "true",
            true,
        ),
        (
            json!({"Bool": {"aws:SecureTransport": "false"}}),
            "aws:securetransport",
            "true",
            false,
        ),
        (
            json!({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1"]}}),
            "aws:SourceIp",
            "10.9.8.7",
            true,
        ),
        (
            json!({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
            "aws:SourceIp",
            "10.9.8.7",
            false,
        ),
        (
            json!({"IpAddress": {"aws:SourceIp": "127.0.0.1"}}),
            "aws:SourceIp",
            "::1",
            false,
        ),
        (
            json!({"ArnLike": {"a": "arn:aws:iam::*:role/b*"}}),
            "a",
            "arn:aws:iam::1:role/build",
            true,
        ),
        (
            json!({"ArnNotLike": {"a": "arn:aws:iam::*:role/b*"}}),
            "a",
            "arn:aws:iam::1:role/build",
            false,
        ),
        (
            json!({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}),
            "aws:CurrentTime",
            "2029-12-31T23:59:59Z",
            true,
        ),
        (
            json!({"DateGreaterThan": {"aws:CurrentTime": "2030-01-01"}}),
            "aws:CurrentTime",
            "2029-12-31T23:59:59Z",
            false,
        ),
        (
            json!({"Null": {"aws:TokenIssueTime": "true"}}),
            "other",
            "x",
            true,
        ),
        (json!({"Null": {"other": true}}), "other", "x", false),
        (json!({"StringEquals": {"absent": "x"}}), "other", "x", false),
        (json!({"StringNotEquals": {"absent": "x"}}), "other", "x", true),
        (
            json!({"StringEqualsIfExists": {"absent": "x"}}),
            "other",
            "x",
            true,
        ),
        (
            json!({"StringEqualsIfExists": {"other": "y"}}),
            "other",
            "x",
            false,
        ),
        (
            json!({"ForAnyValue:StringEquals": {"absent": "x"}}),
            "other",
            "x",
            false,
        ),
        (
            json!({"ForAllValues:StringEquals": {"absent": "x"}}),
            "other",
            "x",
            true,
        ),
    ];
    for (condition, key, value, holds) in cases {
        let decision = run(&with_condition(condition.clone()), &context(&[(key, value)]));
        assert_eq!(
            decision == Decision::Allow,
            holds,
            "{condition} with {key}={value}"
        );
    }
}

#[test]
fn all_keys_of_a_condition_must_hold() {
    let policy = with_condition(json!({"StringEquals": {"a": "1", "b": "2"}}));
    assert_eq!(run(&policy, &context(&[("a", "1"), ("b", "2")])), Decision::Allow);
    assert_eq!(
        run(&policy, &context(&[("a", "1"), ("b", "3")])),
        Decision::Silent
    );
}

#[test]
fn set_operators_look_at_every_value() {
    let mut tags = Context::default();
    tags.set_all("aws:TagKeys", vec!["team".into(), "cost".into()]);
    for (operator, allowed, holds) in [
        ("ForAllValues:StringEquals", json!(["team", "cost", "x"]), true),
        ("ForAllValues:StringEquals", json!(["team"]), false),
        ("ForAnyValue:StringEquals", json!(["team"]), true),
        ("ForAnyValue:StringEquals", json!(["x"]), false),
    ] {
        let policy = with_condition(json!({operator: {"aws:TagKeys": allowed}}));
        assert_eq!(
            run(&policy, &tags) == Decision::Allow,
            holds,
            "{operator} {allowed}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_cause() {
    let statement = |name: &str, value: Value| {
        let mut statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        statement[name] = value;
        json!({ "Statement": [statement] }).to_string()
    };
    for (text, cause) in [
        ("{".to_owned(), "no JSON"),
        ("[]".to_owned(), "no JSON object"),
        ("{}".to_owned(), "Statement is missing"),
        (
            json!({"Version": "2020-01-01", "Statement": []}).to_string(),
            "Version",
        ),
        (
            json!({"Statement": [{"Effect": "Allow", "Action": "*"}]}).to_string(),
            "Resource",
        ),
        (statement("Effect", json!("allow")), "Effect"),
        (statement("Action", json!("RunMicrovm")), "Action"),
        (statement("Action", json!([])), "Action"),
        (statement("Resource", json!("demo")), "Resource"),
        (statement("NotAction", json!("*")), "either Action or NotAction"),
        (statement("Principal", json!("*")), "Principal"),
        (
            statement("Condition", json!({"StringEqual": {"a": "b"}})),
            "StringEqual",
        ),
        (
            statement("Condition", json!({"IpAddress": {"a": "ten"}})),
            "IpAddress a",
        ),
        (statement("Condition", json!({"Bool": {"a": "yes"}})), "Bool a"),
    ] {
        let error = Policy::read(&text).expect_err(&text).to_string();
        assert!(error.contains(cause), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Policy::read(&text);
    }

    #[test]
    fn a_pattern_without_wildcards_matches_itself_alone(value in "[a-z:/]{0,12}", other in "[a-z:/]{0,12}") {
        let pattern = pattern::Pattern::read(&value, true).expect("plain");
        prop_assert_eq!(pattern.matches(&other, &Context::default()), value == other);
    }

    #[test]
    fn stars_match_as_a_regular_expression_would(pattern in "[ab*?]{0,10}", value in "[ab]{0,12}") {
        // The slow way: every way to spread the value over the pattern.
        fn slow(pattern: &[u8], value: &[u8]) -> bool {
            match (pattern.first(), value.first()) {
                (None, _) => value.is_empty(),
                (Some(b'*'), _) => slow(&pattern[1..], value) || (!value.is_empty() && slow(pattern, &value[1..])),
                (Some(b'?'), Some(_)) => slow(&pattern[1..], &value[1..]),
                (Some(a), Some(b)) => a == b && slow(&pattern[1..], &value[1..]),
                (Some(_), None) => false,
            }
        }
        let read = pattern::Pattern::read(&pattern, true).expect("plain");
        prop_assert_eq!(
            read.matches(&value, &Context::default()),
            slow(pattern.as_bytes(), value.as_bytes())
        );
    }
}
