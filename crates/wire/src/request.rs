//! From the parts of an HTTP request to the one object that [`Operation::decode`] takes.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{
    ApiError, ErrorKind, Operation,
    constraints::{Place, Shape},
};

/// The decoded labels of a path, by member name.
pub type Labels = Vec<(&'static str, String)>;

impl Operation {
    /// The operation of a method and a raw (still encoded) path; `:` and `%3A` are the same in a label.
    pub fn route_to(method: &str, path: &str) -> Result<(Self, Labels), ApiError> {
        let matching = Self::ALL.iter().find_map(|operation| {
            let (own_method, pattern) = operation.route();
            (own_method == method)
                .then(|| matched_labels(pattern, path))
                .flatten()
                .map(|raw| (*operation, raw))
        });
        let (operation, raw) = matching.ok_or_else(unknown_operation)?;
        let decoded = raw.into_iter().map(|(name, raw)| {
            let label = percent_decode_str(raw)
                .decode_utf8()
                .map_err(|_| unknown_operation())?;
            Ok((name, label.into_owned()))
        });
        Ok((operation, decoded.collect::<Result<_, ApiError>>()?))
    }

    /// Puts body, labels and query into one object. Only members that belong to the body are taken from it.
    pub fn gather(self, labels: Labels, query: &str, body: Value) -> Result<Value, ApiError> {
        let mut body = match body {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(ApiError::serialization("Expected null")),
        };
        let mut labels: Map<String, Value> = labels
            .into_iter()
            .map(|(name, label)| (name.to_owned(), Value::String(label)))
            .collect();
        let query = query_pairs(query)?;
        let members = self.members().iter().filter_map(|member| {
            let value = match member.place {
                Place::Body => body.remove(member.name),
                Place::Path => labels.remove(member.name),
                Place::Query(name) => query_value(member.shape, name, &query),
            };
            Some((member.name.to_owned(), value?))
        });
        Ok(Value::Object(members.collect()))
    }

    /// Refuses a query that cannot be read. Clients sign such a query in different ways, so that this comes before the
    /// signature: they learn what is wrong.
    pub fn check_query(query: &str) -> Result<(), ApiError> {
        query_pairs(query).map(drop)
    }

    /// Whether any member comes in the body; otherwise whatever body there is does not matter.
    pub fn has_body(self) -> bool {
        self.members().iter().any(|member| member.place == Place::Body)
    }
}

fn unknown_operation() -> ApiError {
    ApiError::new(
        ErrorKind::UnknownOperation,
        "The requested operation is not recognized by the service.",
    )
}

/// The raw labels of `path`, when it fits `pattern`.
fn matched_labels<'a>(pattern: &'static str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let mut labels = Vec::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => labels.push((name, segment)),
            None if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(labels)
}

/// Decoded pairs. An unescaped `=` inside a value gives 400 with a null message (spec 3.2).
fn query_pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| ApiError::silent(ErrorKind::Validation))
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.contains('=') {
            return Err(ApiError::silent(ErrorKind::Validation));
        }
        Ok((decode(name)?, decode(value)?))
    });
    pairs.collect()
}

/// The value of one query member: every occurrence for a list, else the first; numbers as numbers.
fn query_value(shape: &Shape, name: &str, pairs: &[(String, String)]) -> Option<Value> {
    let mut values = pairs
        .iter()
        .filter(|(given, _)| given == name)
        .map(|(_, value)| value.as_str());
    match shape {
        Shape::List { .. } => {
            let items: Vec<Value> = values.map(Value::from).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Shape::Integer { .. } => values
            .next()
            .map(|text| text.parse::<i64>().map_or_else(|_| text.into(), Value::from)),
        _ => values.next().map(Value::from),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:lambda:us-east-1:111122223333:microvm-image:demo";

    #[test]
    fn a_raw_and_an_escaped_colon_name_the_same_image() {
        let escaped = ARN.replace(':', "%3A");
        for label in [ARN, escaped.as_str()] {
            let path = format!("/2025-09-09/microvm-images/{label}/versions/1.0");
            let (operation, labels) = Operation::route_to("GET", &path).expect("routes");
            assert_eq!(operation, Operation::GetMicrovmImageVersion);
            assert_eq!(
                labels,
                [
                    ("imageIdentifier", ARN.to_owned()),
                    ("imageVersion", "1.0".to_owned())
                ]
            );
        }
    }

    #[test]
    fn a_slash_inside_a_label_arrives_only_when_escaped() {
        let (operation, labels) =
            Operation::route_to("GET", "/2025-09-09/microvm-images/microvm-image%2Fdemo").expect("routes");
        assert_eq!(operation, Operation::GetMicrovmImage);
        assert_eq!(labels[0].1, "microvm-image/demo");
        assert!(Operation::route_to("GET", "/2025-09-09/microvm-images/microvm-image/demo").is_err());
    }

    #[test]
    fn what_is_no_operation_is_unknown() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", ""),
            ("PUT", "/2025-09-09/microvms"),
            ("POST", "/2025-09-09/microvms/"),
            ("POST", "/2025-09-09/microvms//suspend"),
            ("POST", "/2025-09-09/microvms/a/suspend/b"),
            ("GET", "/2025-09-09/microvms/%ff"),
            ("get", "/2025-09-09/microvms"),
        ] {
            let error = Operation::route_to(method, path).expect_err(path);
            assert_eq!(
                (error.status(), error.kind),
                (404, ErrorKind::UnknownOperation),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn every_operation_is_reached_by_its_own_route() {
        for operation in Operation::ALL {
            let (method, pattern) = operation.route();
            let path = pattern.replace(['{', '}'], "");
            assert_eq!(
                Operation::route_to(method, &path).map(|(found, _)| found),
                Ok(*operation)
            );
        }
    }

    #[test]
    fn each_member_is_taken_from_its_own_place() {
        let labels = vec![("imageIdentifier", ARN.to_owned())];
        let body = json!({"imageIdentifier": "other", "baseImageArn": "b", "unknown": 1});
        let request = Operation::UpdateMicrovmImage
            .gather(labels, "name=x", body)
            .expect("gathers");
        assert_eq!(request, json!({"imageIdentifier": ARN, "baseImageArn": "b"}));
    }

    #[test]
    fn query_members_become_numbers_lists_and_strings() {
        let gather = |operation: Operation, query| operation.gather(Vec::new(), query, Value::Null);
        assert_eq!(
            gather(
                Operation::ListMicrovms,
                "maxResults=7&nextToken=a%3D&imageVersion=1.0&junk"
            ),
            Ok(json!({"maxResults": 7, "nextToken": "a=", "imageVersion": "1.0"}))
        );
        assert_eq!(
            gather(Operation::UntagResource, "tagKeys=a&tagKeys=b%20c"),
            Ok(json!({"TagKeys": ["a", "b c"]}))
        );
        assert_eq!(
            gather(Operation::ListMicrovms, "maxResults=seven"),
            Ok(json!({"maxResults": "seven"}))
        );
        assert_eq!(
            gather(Operation::ListMicrovms, "nextToken=a=")
                .expect_err("unescaped")
                .body(),
            json!({"message": null})
        );
    }

    proptest! {
        #[test]
        fn no_path_or_query_panics(method in "GET|POST|DELETE", path in "(/2025-09-09/microvms)?\\PC{0,60}", query in "\\PC{0,60}") {
            if let Ok((operation, labels)) = Operation::route_to(&method, &path) {
                let _ = operation.gather(labels, &query, Value::Null);
            }
        }
    }
}
