//! The room's promises, told from outside.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ME: &str = "111111111111";
const GROUP: &str = "/aws/lambda-microvms/app";
const STREAM: &str = "2026/11/22[1.0]../../mvm-ünï";

fn small() -> Limits {
    Limits {
        stream_bytes: 64 << 10,
        group_bytes: 200 << 10,
        bytes_per_second: 1 << 30,
        burst_bytes: 1 << 30,
        ..Limits::default()
    }
}

async fn logs() -> (tempfile::TempDir, Logs) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = Logs::open_with(dir.path(), small()).await.expect("new logs open");
    (dir, logs)
}

async fn messages(logs: &Logs, query: ReadQuery) -> Vec<String> {
    let page = logs.read(ME, GROUP, STREAM, query).await.expect("read");
    page.events.into_iter().map(|event| event.message).collect()
}

async fn call(logs: &Logs, operation: &str, body: Value) -> Result<Value, LogsError> {
    LogsService::new(logs.clone())
        .call(ME, "us-east-1", &format!("Logs_20140328.{operation}"), body)
        .await
}

fn head() -> ReadQuery {
    ReadQuery {
        from: From::Head,
        ..ReadQuery::default()
    }
}

fn disk(dir: &Path) -> u64 {
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("entry");
        let metadata = entry.metadata().expect("metadata");
        if metadata.is_dir() {
            disk(&entry.path())
        } else {
            metadata.len()
        }
    };
    std::fs::read_dir(dir).expect("directory").map(size).sum()
}

#[tokio::test]
async fn raw_output_becomes_a_line_an_event() {
    let (_dir, logs) = logs().await;
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    for piece in ["one\ntw", "o\r\n", "\n", "bad \u{1}\n", "unended"] {
        writer.write(piece.as_bytes());
    }
    writer.write(b"\xff\n");
    assert_eq!(
        messages(&logs, head()).await,
        ["one", "two", "", "bad \u{1}", "unended\u{fffd}"]
    );
}

#[tokio::test]
async fn a_long_line_is_split_between_characters() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = Logs::open(dir.path()).await.expect("open");
    let writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    writer.line(&format!("x{}", "ü".repeat(MAX_MESSAGE_BYTES / 2)));
    let found = messages(&logs, head()).await;
    assert_eq!(
        found.iter().map(String::len).collect::<Vec<_>>(),
        [MAX_MESSAGE_BYTES - 1, 2]
    );
}

#[tokio::test]
async fn what_was_flushed_survives_and_a_torn_line_is_dropped() {
    let (dir, logs) = logs().await;
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    writer.line("kept");
    writer.flush().await.expect("flush");
    let stream = logs
        .inner
        .stream(ME, GROUP, STREAM)
        .expect("stream")
        .1
        .dir
        .clone();
    drop((writer, logs));
    let segment = stream.join(format!("{:012}.jsonl", 1));
    let mut data = std::fs::read(&segment).expect("segment");
    data.extend_from_slice(b"{\"t\":1,\"i\":1,\"m\":\"torn");
    std::fs::write(&segment, data).expect("tear");
    std::fs::create_dir(stream.join("../.new-half")).expect("half-made stream");

    let logs = Logs::open_with(dir.path(), small()).await.expect("reopen");
    assert_eq!(messages(&logs, head()).await, ["kept"]);
    logs.writer(ME, GROUP, STREAM)
        .await
        .expect("writer")
        .line("after");
    assert_eq!(messages(&logs, head()).await, ["kept", "after"]);
}

#[tokio::test]
async fn dropping_the_logs_writes_out_what_waits() {
    let (dir, logs) = logs().await;
    logs.writer(ME, GROUP, STREAM)
        .await
        .expect("writer")
        .line("last words");
    drop(logs);
    let logs = Logs::open_with(dir.path(), small()).await.expect("reopen");
    assert_eq!(messages(&logs, head()).await, ["last words"]);
}

#[tokio::test]
async fn a_stream_keeps_its_newest_events_within_its_limit() {
    let (dir, logs) = logs().await;
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    for at in 0..3000 {
        writer.line(&format!("{at:05} {}", "x".repeat(100)));
        if at % 20 == 0 {
            writer.flush().await.expect("flush");
        }
    }
    let found = messages(&logs, head()).await;
    assert!(found.last().expect("newest").starts_with("02999"));
    assert!(found.len() > 200, "only {} kept", found.len());
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(disk(dir.path()) < 70 << 10);
}

#[tokio::test]
async fn a_group_evicts_its_oldest_streams() {
    let (dir, logs) = logs().await;
    for at in 0..40 {
        let mut writer = logs
            .writer(ME, GROUP, &format!("stream-{at:02}"))
            .await
            .expect("writer");
        writer.line(&"x".repeat(20 << 10));
        writer.flush().await.expect("flush");
    }
    let group = logs.inner.group(ME, GROUP).expect("group");
    let kept: Vec<String> = group.streams().keys().cloned().collect();
    assert!(
        kept.contains(&"stream-39".to_owned()) && !kept.contains(&"stream-00".to_owned()),
        "{kept:?}"
    );
    assert!(disk(dir.path()) <= 200 << 10);
}

#[tokio::test]
async fn a_chatty_writer_loses_lines_and_the_log_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = Limits {
        bytes_per_second: 1,
        burst_bytes: 10_000,
        ..Limits::default()
    };
    let logs = Logs::open_with(dir.path(), limits).await.expect("open");
    let writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    for _ in 0..1000 {
        writer.line("y y y y y y y y y y y y y y y y y y y y y y y y y y");
    }
    let found = messages(&logs, head()).await;
    assert!(found.len() < 110, "{} lines went through", found.len());
    assert!(
        found.last().expect("notice").contains("lines (")
            && found.last().expect("notice").contains("dropped")
    );
}

#[tokio::test]
async fn output_over_the_rate_is_counted_to_the_last_line_and_what_has_no_end_yet_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = Limits {
        bytes_per_second: 1_000,
        burst_bytes: 10_000,
        ..Limits::default()
    };
    let logs = Logs::open_with(dir.path(), limits).await.expect("open");
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    let mut output = b"y\n".repeat(1 << 20);
    output.extend_from_slice(b"half");
    writer.write(&output);
    let found = messages(&logs, head()).await;
    let (notice, kept) = found.split_last().expect("lines");
    assert!(kept.len() < 1000, "{} lines went through", kept.len());
    let lost = (1 << 20) - kept.len();
    assert_eq!(
        *notice,
        format!("[hearth] {lost} lines ({lost} bytes) were dropped: this log stream is over its rate")
    );
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    writer.write(b" a line\n");
    assert_eq!(
        messages(&logs, head()).await.last().expect("a line"),
        "half a line"
    );
}

#[tokio::test]
async fn a_writer_outlives_the_deletion_of_its_group() {
    let (_dir, logs) = logs().await;
    let writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    writer.line("before");
    logs.delete_group(ME, GROUP).await.expect("delete");
    let gone = logs.read(ME, GROUP, STREAM, head()).await.expect_err("gone");
    assert_eq!(gone.type_name, "ResourceNotFoundException");
    writer.line("after");
    assert_eq!(messages(&logs, head()).await, ["after"]);
}

#[tokio::test]
async fn a_follower_sees_each_event_once_and_the_end() {
    let (_dir, logs) = logs().await;
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    writer.line("old");
    let mut follower = logs.follow(ME, GROUP, STREAM, From::Tail).await.expect("follow");
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(events) = follower.next().await.expect("next") {
            seen.extend(events.into_iter().map(|event| event.message));
            if seen.len() == 50 {
                return (seen, follower);
            }
        }
        panic!("the stream ended early");
    });
    for at in 0..50 {
        writer.line(&at.to_string());
        tokio::task::yield_now().await;
        if at % 7 == 0 {
            writer.flush().await.expect("flush");
        }
    }
    let (seen, mut follower) = following.await.expect("follower");
    assert_eq!(seen, (0..50).map(|at| at.to_string()).collect::<Vec<_>>());
    logs.delete_stream(ME, GROUP, STREAM).await.expect("delete");
    assert_eq!(follower.next().await.expect("next"), None);
}

#[tokio::test]
async fn the_tokens_of_get_log_events_lead_through_the_stream_and_stop() {
    let (_dir, logs) = logs().await;
    let writer = logs.writer(ME, GROUP, STREAM).await.expect("writer");
    for at in 0..10 {
        writer.line_at(1000 + at, &at.to_string());
    }
    let get = async |extra: Value| {
        let mut body = json!({ "logGroupName": GROUP, "logStreamName": STREAM, "limit": 4 });
        body.as_object_mut()
            .expect("object")
            .extend(extra.as_object().expect("object").clone());
        let page = call(&logs, "GetLogEvents", body).await.expect("page");
        let events = page["events"].as_array().expect("events").iter();
        let text: String = events
            .map(|event| event["message"].as_str().expect("message").to_owned())
            .collect();
        let token = |name: &str| page[name].as_str().expect("token").to_owned();
        (text, token("nextForwardToken"), token("nextBackwardToken"))
    };
    let (text, forward, _) = get(json!({ "startFromHead": true })).await;
    assert_eq!(text, "0123");
    let (text, forward, back) = get(json!({ "nextToken": forward })).await;
    assert_eq!(text, "4567");
    assert_eq!(get(json!({ "nextToken": back })).await.0, "0123");
    let (text, end, _) = get(json!({ "nextToken": forward })).await;
    assert_eq!(text, "89");
    let (text, again, _) = get(json!({ "nextToken": end })).await;
    assert_eq!((text.as_str(), &again), ("", &end));
    writer.line("more");
    assert_eq!(get(json!({ "nextToken": again })).await.0, "more");

    let (text, _, back) = get(json!({})).await;
    assert_eq!(text, "789more");
    assert_eq!(get(json!({ "nextToken": back })).await.0, "3456");
    assert_eq!(
        get(json!({ "startTime": 1002, "endTime": 1005, "startFromHead": true }))
            .await
            .0,
        "234"
    );
    let bad = call(
        &logs,
        "GetLogEvents",
        json!({ "logGroupName": GROUP, "logStreamName": STREAM, "nextToken": "f/1" }),
    );
    assert_eq!(
        bad.await.expect_err("refused").type_name,
        "InvalidParameterException"
    );
}

#[tokio::test]
async fn the_service_describes_what_there_is() {
    let (_dir, logs) = logs().await;
    for group in ["/a", "/b", GROUP] {
        call(&logs, "CreateLogGroup", json!({ "logGroupName": group }))
            .await
            .expect("create");
    }
    let again = call(&logs, "CreateLogGroup", json!({ "logGroupName": "/a" }))
        .await
        .expect_err("exists");
    assert_eq!(
        (again.status, again.type_name),
        (400, "ResourceAlreadyExistsException")
    );
    let page = call(
        &logs,
        "DescribeLogGroups",
        json!({ "limit": 2, "nextToken": null }),
    )
    .await
    .expect("groups");
    assert_eq!(
        page["logGroups"][1]["arn"],
        format!("arn:aws:logs:us-east-1:{ME}:log-group:{GROUP}:*")
    );
    let page = call(
        &logs,
        "DescribeLogGroups",
        json!({ "nextToken": page["nextToken"] }),
    )
    .await
    .expect("groups");
    assert_eq!(
        (
            page["logGroups"][0]["logGroupName"].as_str(),
            page.get("nextToken")
        ),
        (Some("/b"), None)
    );

    for (stream, at) in [("x", 3), ("y", 1), ("z", 2)] {
        logs.writer(ME, GROUP, stream)
            .await
            .expect("writer")
            .line_at(at, "event");
        messages_of(&logs, stream).await;
    }
    let by_time =
        json!({ "logGroupName": GROUP, "orderBy": "LastEventTime", "descending": true, "limit": 2 });
    let page = call(&logs, "DescribeLogStreams", by_time.clone())
        .await
        .expect("streams");
    let names = |page: &Value| -> Vec<String> {
        let streams = page["logStreams"].as_array().expect("streams").iter();
        streams
            .map(|stream| stream["logStreamName"].as_str().expect("name").to_owned())
            .collect()
    };
    assert_eq!(names(&page), ["x", "z"]);
    let mut rest = by_time;
    rest["nextToken"] = page["nextToken"].clone();
    let page = call(&logs, "DescribeLogStreams", rest).await.expect("streams");
    assert_eq!(
        (names(&page), &page["logStreams"][0]["lastEventTimestamp"]),
        (vec!["y".to_owned()], &json!(1))
    );
    let unknown = call(&logs, "Dance", json!({})).await.expect_err("unknown");
    assert_eq!(unknown.type_name, "UnknownOperationException");
    let foreign = LogsService::new(logs.clone());
    let foreign = foreign
        .call(
            "222222222222",
            "us-east-1",
            "Logs_20140328.DescribeLogGroups",
            json!({}),
        )
        .await
        .expect("call");
    assert_eq!(foreign["logGroups"], json!([]));
}

async fn messages_of(logs: &Logs, stream: &str) -> usize {
    logs.read(ME, GROUP, stream, head())
        .await
        .expect("read")
        .events
        .len()
}

#[tokio::test]
async fn put_log_events_takes_what_is_in_time_and_in_order() {
    let (_dir, logs) = logs().await;
    call(&logs, "CreateLogGroup", json!({ "logGroupName": GROUP }))
        .await
        .expect("group");
    call(
        &logs,
        "CreateLogStream",
        json!({ "logGroupName": GROUP, "logStreamName": STREAM }),
    )
    .await
    .expect("stream");
    let put = async |events: &[(i64, &str)]| {
        let events: Vec<Value> = events
            .iter()
            .map(|(t, m)| json!({ "timestamp": t, "message": m }))
            .collect();
        call(
            &logs,
            "PutLogEvents",
            json!({ "logGroupName": GROUP, "logStreamName": STREAM, "logEvents": events }),
        )
        .await
    };
    let now = now_ms();
    let answer = put(&[(now, "a"), (now + 1, "b"), (now + FUTURE, "c")])
        .await
        .expect("put");
    assert_eq!(
        answer["rejectedLogEventsInfo"],
        json!({ "tooNewLogEventStartIndex": 2 })
    );
    assert_eq!(messages(&logs, head()).await, ["a", "b"]);
    for bad in [&[(now + 1, "a"), (now, "b")][..], &[], &[(now, "")]] {
        assert_eq!(
            put(bad).await.expect_err("refused").type_name,
            "InvalidParameterException"
        );
    }
}

const FUTURE: i64 = 3 * 3600 * 1000;

#[test]
fn patterns_match_as_documented() {
    let cases = [
        ("", "anything", true),
        ("ERROR", "an ERROR here", true),
        ("error", "an ERROR here", false),
        ("a b", "b then a", true),
        ("\"a b\"", "b then a", false),
        ("\"a b\"", "x a b", true),
        ("a -b", "a b", false),
        ("?x ?y", "has y", true),
        ("?x ?y", "has z", false),
        ("-\"not this\"", "but not this", false),
        (r#""say \"hi\"""#, r#"they say "hi""#, true),
    ];
    for (pattern, message, wanted) in cases {
        let parsed = pattern::Pattern::parse(pattern).expect("a pattern");
        assert_eq!(parsed.matches(message), wanted, "{pattern} on {message}");
    }
    for bad in ["\"open", "{ $.x = 1 }", "[a, b]"] {
        assert_eq!(
            pattern::Pattern::parse(bad).expect_err("refused").type_name,
            "InvalidParameterException"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn filtered_pages_add_up_to_every_event_by_time(
        events in proptest::collection::vec((0usize..3, 0i64..50, 1usize..3000), 1..120),
        limit in 1usize..9,
        start in 0i64..50,
        cut in proptest::collection::vec(any::<bool>(), 120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let limits = Limits { stream_bytes: 1 << 20, ..Limits::default() };
            let logs = Logs::open_with(dir.path(), limits).await.expect("open");
            let mut expected = Vec::new();
            for ((at, (stream, time, size)), cut) in events.iter().enumerate().zip(&cut) {
                let name = format!("s{stream}");
                let mut writer = logs.writer(ME, GROUP, &name).await.expect("writer");
                let message = format!("{at} {}", "x".repeat(*size * 10));
                writer.line_at(*time, &message);
                if *cut {
                    writer.flush().await.expect("flush");
                }
                if *time >= start {
                    expected.push((*time, name, message));
                }
            }
            expected.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            let mut found = Vec::new();
            let mut body = json!({ "logGroupName": GROUP, "limit": limit, "startTime": start });
            loop {
                let page = call(&logs, "FilterLogEvents", body.clone()).await.expect("page");
                let events = page["events"].as_array().expect("events");
                assert!(events.len() <= limit);
                for event in events {
                    let text = |name: &str| event[name].as_str().expect("text").to_owned();
                    assert_eq!(text("eventId").len(), 56);
                    found.push((event["timestamp"].as_i64().expect("time"), text("logStreamName"), text("message")));
                }
                match page.get("nextToken") {
                    Some(token) => body["nextToken"] = token.clone(),
                    None => break,
                }
            }
            assert_eq!(found, expected);
        });
    }
}

#[tokio::test]
async fn a_group_forgets_what_is_older_than_it_keeps() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    let (dir, logs) = logs().await;
    let mut writer = logs.writer(ME, GROUP, STREAM).await.expect("a writer");
    writer.line("old");
    writer.flush().await.expect("written");
    logs.inner.expire(now_ms() + 1000 * DAY_MS);
    assert_eq!(
        messages(&logs, head()).await,
        ["old"],
        "for ever, where nothing was set"
    );

    let group = json!({ "logGroupName": GROUP });
    let put = |days: i64| json!({ "logGroupName": GROUP, "retentionInDays": days });
    let refused = call(&logs, "PutRetentionPolicy", put(2))
        .await
        .expect_err("no such choice");
    assert_eq!(
        (refused.status, refused.type_name),
        (400, "InvalidParameterException")
    );
    call(&logs, "PutRetentionPolicy", put(3)).await.expect("set");
    logs.inner.expire(now_ms() + 2 * DAY_MS);
    assert_eq!(messages(&logs, head()).await, ["old"]);
    logs.inner.expire(now_ms() + 4 * DAY_MS);
    assert!(messages(&logs, head()).await.is_empty());
    writer.line("new");
    writer.flush().await.expect("written");
    assert_eq!(messages(&logs, head()).await, ["new"]);

    let told = async |logs: &Logs| {
        let groups = call(logs, "DescribeLogGroups", json!({}))
            .await
            .expect("described");
        groups["logGroups"][0]["retentionInDays"].clone()
    };
    drop(writer);
    drop(logs);
    let logs = Logs::open_with(dir.path(), small()).await.expect("opens again");
    assert_eq!(told(&logs).await, json!(3));
    call(&logs, "DeleteRetentionPolicy", group)
        .await
        .expect("removed");
    assert_eq!(told(&logs).await, Value::Null);
}
