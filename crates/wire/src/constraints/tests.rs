//! The recorded messages word for word, and, generated from the tables, a violation of every constraint.

use serde_json::{Value, json};

use super::{Member, Shape, pattern, rule::rules};
use crate::{ApiError, ErrorKind, Operation, types::CreateMicrovmImageRequest};

/// A string that satisfies each pattern of the tables.
fn example(pattern: &str) -> &'static str {
    match pattern {
        r"[^\s]+" | "[^:*]*" | "[a-zA-Z0-9-_]+" | r"[a-zA-Z0-9_\-/.#]+" => "x",
        r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)" => "x",
        "[a-zA-Z0-9+=,.@_-]+" => "x",
        "[0-9]{12}" => "111122223333",
        "[a-zA-Z0-9]+" => "AKIAIOSFODNN7EXAMPLE",
        "subnet-[0-9a-z]*" => "subnet-1",
        "sg-[0-9a-zA-Z]*" => "sg-1",
        pattern if pattern.ends_with("|[a-zA-Z0-9_-]{1,64}") => "x",
        pattern if pattern.contains(":kms:") => "alias/mine",
        pattern if pattern.contains(":iam:") => "arn:aws:iam::111122223333:role/build",
        pattern if pattern.contains("microvm-image") => {
            "arn:aws:lambda:us-east-1:111122223333:microvm-image:demo"
        }
        other => panic!("no example for {other}"),
    }
}

/// A string that breaks each pattern of the tables.
fn counterexample(pattern: &str) -> &'static str {
    if pattern == "[^:*]*" { "a:b" } else { "a b\t!" }
}

/// The least value of a shape, with every optional member when `full`.
fn valid(shape: &Shape, full: bool) -> Value {
    match shape {
        Shape::Text(text) => text
            .pattern
            .map_or_else(|| "x".repeat(text.min.max(1)), |p| example(p).to_owned())
            .into(),
        Shape::Enum(names) => names[0].into(),
        Shape::Integer { min, .. } => min.unwrap_or(1).into(),
        Shape::Boolean => true.into(),
        Shape::List { min, item, .. } => vec![valid(item, full); (*min).max(1)].into(),
        Shape::Map { key, value, .. } => {
            let key = valid(key, full).as_str().expect("keys are text").to_owned();
            Value::Object([(key, valid(value, full))].into_iter().collect())
        }
        Shape::Structure(members) => valid_members(members, full),
        Shape::Union(members) => json!({ members[0].name: valid(members[0].shape, full) }),
    }
}

fn valid_members(members: &[Member], full: bool) -> Value {
    let members = members.iter().filter(|member| full || member.required);
    Value::Object(
        members
            .map(|member| (member.name.to_owned(), valid(member.shape, full)))
            .collect(),
    )
}

/// Values that break one constraint of `shape` itself, each with the words the message must have.
fn violations(shape: &Shape) -> Vec<(Value, String)> {
    let mut found: Vec<(Value, String)> = Vec::new();
    match shape {
        Shape::Text(text) => {
            if text.min > 0 {
                let least = text.min;
                found.push((
                    "x".repeat(least - 1).into(),
                    format!("length greater than or equal to {least}"),
                ));
            }
            if let Some(max) = text.max {
                found.push((
                    "x".repeat(max + 1).into(),
                    format!("length less than or equal to {max}"),
                ));
            }
            if let Some(pattern) = text.pattern {
                found.push((
                    counterexample(pattern).into(),
                    format!("regular expression pattern: {pattern}"),
                ));
            }
        }
        Shape::Enum(names) => found.push(("NOPE".into(), format!("enum value set: [{}]", names.join(", ")))),
        Shape::Integer { min, max } => {
            found.extend(min.map(|min| ((min - 1).into(), format!("value greater than or equal to {min}"))));
            found.extend(max.map(|max| ((max + 1).into(), format!("value less than or equal to {max}"))));
        }
        Shape::List { min, max, item } => {
            if let Some(least) = min.checked_sub(1) {
                found.push((
                    vec![valid(item, true); least].into(),
                    format!("length greater than or equal to {min}"),
                ));
            }
            if let Some(max) = max {
                found.push((
                    vec![valid(item, true); max + 1].into(),
                    format!("length less than or equal to {max}"),
                ));
            }
            if !matches!(item, Shape::Structure(_) | Shape::Union(_)) {
                let broken = violations(item).into_iter();
                found.extend(broken.map(|(item, words)| (json!([item]), words)));
            }
        }
        Shape::Map { max, key, value } => {
            if let Some(max) = max {
                let entries = (0..=*max).map(|index| (format!("k{index}"), valid(value, true)));
                found.push((
                    Value::Object(entries.collect()),
                    format!("length less than or equal to {max}"),
                ));
            }
            for (broken, words) in violations(key) {
                let key = broken.as_str().expect("keys are text").to_owned();
                found.push((json!({ key: valid(value, true) }), words));
            }
            found.extend(
                violations(value)
                    .into_iter()
                    .map(|(value, words)| (json!({ "x": value }), words)),
            );
        }
        Shape::Boolean | Shape::Structure(_) | Shape::Union(_) => {}
    }
    found
}

/// Every single violation below `members`, as whole requests made by `within`, with member path and words.
fn all_violations(
    members: &[Member],
    within: &dyn Fn(&str, Value) -> Value,
    path: &str,
) -> Vec<(Value, String, String)> {
    let mut found = Vec::new();
    for member in members {
        let mut name = member.name.to_owned();
        name[..1].make_ascii_lowercase();
        let path = format!("{path}{name}");
        if member.required {
            found.push((
                within(member.name, Value::Null),
                path.clone(),
                "Member must not be null".to_owned(),
            ));
        }
        for (value, words) in violations(member.shape) {
            found.push((within(member.name, value), path.clone(), words));
        }
        match member.shape {
            Shape::Structure(inner) => {
                let nested =
                    |name: &str, value| within(member.name, with(valid_members(inner, true), name, value));
                found.extend(all_violations(inner, &nested, &format!("{path}.")));
            }
            Shape::Union(inner) => {
                let nested = |name: &str, value| within(member.name, json!({ name: value }));
                found.extend(all_violations(inner, &nested, &format!("{path}.")));
            }
            Shape::List {
                item: Shape::Structure(inner),
                ..
            } => {
                let nested = |name: &str, value| {
                    within(
                        member.name,
                        json!([with(valid_members(inner, true), name, value)]),
                    )
                };
                found.extend(all_violations(inner, &nested, &format!("{path}.1.member.")));
            }
            Shape::List {
                item: Shape::Union(inner),
                ..
            } => {
                let nested = |name: &str, value| within(member.name, json!([{ name: value }]));
                found.extend(all_violations(inner, &nested, &format!("{path}.1.member.")));
            }
            _ => {}
        }
    }
    found
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn refusal(operation: Operation, request: &Value) -> ApiError {
    super::validate(operation, request).expect_err(&format!("{operation:?} accepts {request}"))
}

#[test]
fn the_least_and_the_fullest_request_of_every_operation_are_accepted() {
    for operation in Operation::ALL {
        for full in [false, true] {
            let request = valid_members(operation.members(), full);
            assert_eq!(
                super::validate(*operation, &request),
                Ok(()),
                "{operation:?} {request}"
            );
        }
    }
}

#[test]
fn every_constraint_of_every_member_of_every_operation_is_enforced_and_named() {
    let mut count = 0;
    for operation in Operation::ALL {
        let full = valid_members(operation.members(), true);
        let within = |name: &str, value| with(full.clone(), name, value);
        for (request, path, words) in all_violations(operation.members(), &within, "") {
            let error = refusal(*operation, &request);
            assert_eq!(error.kind, ErrorKind::Validation, "{operation:?} {path} {words}");
            let message = error.message.expect("a message");
            assert!(
                message.contains(&format!(" at '{path}' failed")),
                "{operation:?} {path}: {message}"
            );
            assert!(
                message.contains(&words),
                "{operation:?} {path} {words}: {message}"
            );
            count += 1;
        }
    }
    assert!(count > 280, "only {count} constraints were tried");
}

#[test]
fn a_wrong_type_is_a_serialization_error_at_every_member() {
    for operation in Operation::ALL {
        let full = valid_members(operation.members(), true);
        for member in operation.members() {
            let wrong = match member.shape {
                Shape::Text(_) | Shape::Enum(_) => vec![json!(1), json!(true), json!([]), json!({})],
                Shape::Integer { .. } => vec![json!("x"), json!(1.5), json!(1u64 << 40), json!([])],
                Shape::Boolean => vec![json!("true"), json!(0)],
                Shape::List { .. } => vec![json!("x"), json!({}), json!([[[]]])],
                Shape::Map { .. } => vec![json!("x"), json!([]), json!({"k": 1})],
                Shape::Structure(_) | Shape::Union(_) => vec![json!("x"), json!(true), json!([])],
            };
            for value in wrong {
                let error = refusal(*operation, &with(full.clone(), member.name, value.clone()));
                assert_eq!(
                    error.kind,
                    ErrorKind::Serialization,
                    "{operation:?} {} {value}",
                    member.name
                );
            }
        }
    }
}

#[test]
fn a_sensitive_value_is_never_printed() {
    let request = json!({"imageIdentifier": "bogus", "runHookPayload": "s3cret".repeat(1000)});
    let error = refusal(Operation::RunMicrovm, &request);
    assert_eq!(
        error.message.as_deref(),
        Some(
            "1 validation error detected: Value at 'runHookPayload' failed to satisfy constraint: Member must have \
             length less than or equal to 4096"
        )
    );
    let full = valid_members(Operation::CreateMicrovmImage.members(), true);
    let request = with(full, "environmentVariables", json!({"K": "s3cret".repeat(1000)}));
    let message = refusal(Operation::CreateMicrovmImage, &request)
        .message
        .expect("a message");
    assert!(
        message.contains("Value at 'environmentVariables' failed") && !message.contains("s3cret"),
        "{message}"
    );
}

#[test]
fn three_missing_members_are_reported_in_the_recorded_order() {
    let error = refusal(Operation::CreateMicrovmImage, &json!({"name": "demo"}));
    assert_eq!(
        error.message.as_deref(),
        Some(
            "3 validation errors detected: Value null at 'baseImageArn' failed to satisfy constraint: Member must not \
             be null; Value null at 'codeArtifact' failed to satisfy constraint: Member must not be null; Value null \
             at 'buildRoleArn' failed to satisfy constraint: Member must not be null"
        )
    );
}

#[test]
fn a_bad_name_is_reported_with_its_value_and_pattern() {
    let request = with(
        valid_members(Operation::CreateMicrovmImage.members(), false),
        "name",
        json!("bad name!"),
    );
    assert_eq!(
        refusal(Operation::CreateMicrovmImage, &request)
            .message
            .as_deref(),
        Some(
            "1 validation error detected: Value 'bad name!' at 'name' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9-_]+"
        )
    );
}

#[test]
fn all_ports_set_to_true_is_the_recorded_serialization_error() {
    let request =
        json!({"microvmIdentifier": "m", "expirationInMinutes": 5, "allowedPorts": [{"allPorts": true}]});
    let error = refusal(Operation::CreateMicrovmAuthToken, &request);
    assert_eq!(
        (error.status(), error.body()),
        (400, json!({"Message": "Expected null"}))
    );
}

#[test]
fn a_union_has_exactly_one_member() {
    let request = |port| json!({"microvmIdentifier": "m", "expirationInMinutes": 5, "allowedPorts": [port]});
    for wrong in [json!({}), json!({"port": 1, "allPorts": {}}), json!({"other": 1})] {
        let error = refusal(Operation::CreateMicrovmAuthToken, &request(wrong));
        assert_eq!(error.kind, ErrorKind::Serialization);
    }
    let null_beside = request(json!({"port": 1, "allPorts": null}));
    assert_eq!(
        super::validate(Operation::CreateMicrovmAuthToken, &null_beside),
        Ok(())
    );
}

#[test]
fn lengths_count_characters() {
    let request = |payload: String| json!({"imageIdentifier": "x", "runHookPayload": payload});
    assert_eq!(
        super::validate(Operation::RunMicrovm, &request("é".repeat(4096))),
        Ok(())
    );
    assert!(super::validate(Operation::RunMicrovm, &request("é".repeat(4097))).is_err());
}

#[test]
fn a_valid_request_of_every_operation_becomes_its_type() {
    let request = valid_members(Operation::CreateMicrovmImage.members(), true);
    let typed: CreateMicrovmImageRequest = Operation::CreateMicrovmImage
        .decode(request.clone())
        .expect("decodes");
    assert_eq!(typed.name, "x");
    let again = super::without_nulls(serde_json::to_value(&typed).expect("serializes"));
    assert_eq!(again, request, "what is stored is what was sent");
}

#[test]
fn every_pattern_compiles_and_has_an_example() {
    fn visit(shape: &Shape) {
        match shape {
            Shape::Text(text) => {
                if let Some(pattern) = text.pattern {
                    assert!(pattern::matches(pattern, example(pattern)), "{pattern}");
                    assert!(!pattern::matches(pattern, counterexample(pattern)), "{pattern}");
                }
                assert!(rules(shape, &valid(shape, true)).iter().all(|rule| rule.holds));
            }
            Shape::List { item, .. } => visit(item),
            Shape::Map { key, value, .. } => [key, value].into_iter().for_each(|shape| visit(shape)),
            Shape::Structure(members) | Shape::Union(members) => members.iter().for_each(|m| visit(m.shape)),
            Shape::Enum(_) | Shape::Integer { .. } | Shape::Boolean => {}
        }
    }
    Operation::ALL
        .iter()
        .flat_map(|operation| operation.members())
        .for_each(|member| visit(member.shape));
}
