use std::{fs, path::Path};

use hearth_wire::{Timestamp, types::AuditItem};
use serde_json::Value;

use super::*;

fn config(directory: &Path, file_bytes: u64) -> AuditConfig {
    AuditConfig {
        directory: directory.to_owned(),
        file_bytes,
        older_files: 2,
    }
}

fn item(number: i64) -> AuditItem {
    AuditItem {
        time: Timestamp::from_millis(number * 1000),
        request_id: number.to_string(),
        account: format!("00000000000{}", number % 2),
        principal: Some(format!(
            "arn:aws:iam::1:user/{}",
            ["ann", "bob"][number as usize % 2]
        )),
        access_key_id: "AKIA".into(),
        operation: "RunMicrovm".into(),
        status: if number % 3 == 0 { 403 } else { 200 },
        error: (number % 3 == 0).then(|| "AccessDeniedException".into()),
        ..AuditItem::default()
    }
}

fn numbers(items: &[AuditItem]) -> Vec<i64> {
    items
        .iter()
        .map(|item| item.request_id.parse().expect("a number"))
        .collect()
}

async fn all(audit: &Audit, mut query: Query) -> Vec<i64> {
    let mut items = Vec::new();
    loop {
        let found = audit.read(query.clone()).await.expect("read");
        items.extend(found.items);
        query.after = found.next;
        if query.after.is_none() {
            return numbers(&items);
        }
    }
}

fn query(limit: usize) -> Query {
    Query {
        limit,
        ..Query::default()
    }
}

#[tokio::test]
async fn a_full_file_makes_way_and_the_oldest_goes() {
    let directory = tempfile::tempdir().expect("temp dir");
    let audit = Audit::open(config(directory.path(), 900)).expect("opens");
    for number in 0..12 {
        audit.write(&item(number)).await.expect("written");
    }
    let kept = all(&audit, query(100)).await;
    assert!(kept.len() < 12, "the oldest are gone: {kept:?}");
    assert_eq!(kept, (12 - kept.len() as i64..12).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 3);
}

#[tokio::test]
async fn what_a_crash_cut_off_spoils_one_line_only() {
    let directory = tempfile::tempdir().expect("temp dir");
    fs::write(
        directory.path().join("audit.log"),
        b"{\"requestId\":\"0\"}\n{\"requ",
    )
    .expect("written");
    let audit = Audit::open(config(directory.path(), 1 << 20)).expect("opens");
    audit.write(&item(1)).await.expect("written");
    let text = fs::read_to_string(directory.path().join("audit.log")).expect("read");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[1]), (3, "{\"requ"));
    assert!(serde_json::from_str::<Value>(lines[2]).is_ok());
    assert_eq!(all(&audit, query(100)).await, [1]);
}

#[tokio::test]
async fn calls_that_end_together_are_all_written() {
    let directory = tempfile::tempdir().expect("temp dir");
    let audit = Audit::open(config(directory.path(), 1 << 20)).expect("opens");
    let writes = (0..500).map(|number| {
        let audit = audit.clone();
        tokio::spawn(async move { audit.write(&item(number)).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.expect("ran").expect("written");
    }
    let mut seen = all(&audit, query(7)).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_filter_takes_away() {
    let directory = tempfile::tempdir().expect("temp dir");
    let audit = Audit::open(config(directory.path(), 1 << 20)).expect("opens");
    for number in 0..6 {
        audit.write(&item(number)).await.expect("written");
    }
    let text = |text: &str| Some(text.to_owned());
    let at = |seconds: i64| Some(Timestamp::from_millis(seconds * 1000));
    for (filter, expected) in [
        (
            Query {
                account: text("000000000001"),
                ..query(9)
            },
            vec![1, 3, 5],
        ),
        (
            Query {
                from: at(4),
                ..query(9)
            },
            vec![4, 5],
        ),
        (
            Query {
                to: at(2),
                ..query(9)
            },
            vec![0, 1],
        ),
        (
            Query {
                who: text("user/bob"),
                ..query(9)
            },
            vec![1, 3, 5],
        ),
        (
            Query {
                who: text("AKIA"),
                ..query(2)
            },
            vec![0, 1, 2, 3, 4, 5],
        ),
        (
            Query {
                who: text("AKI"),
                ..query(9)
            },
            vec![],
        ),
        (
            Query {
                what: text("RunMicrovm"),
                ..query(9)
            },
            vec![0, 1, 2, 3, 4, 5],
        ),
        (
            Query {
                what: text("Run"),
                ..query(9)
            },
            vec![],
        ),
        (
            Query {
                outcome: Some(Outcome::Failed),
                ..query(9)
            },
            vec![0, 3],
        ),
        (
            Query {
                outcome: Some(Outcome::Succeeded),
                ..query(1)
            },
            vec![1, 2, 4, 5],
        ),
    ] {
        assert_eq!(all(&audit, filter.clone()).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn a_reading_goes_on_where_it_was_although_files_were_renamed() {
    let directory = tempfile::tempdir().expect("temp dir");
    let audit = Audit::open(config(directory.path(), 900)).expect("opens");
    let mut written = 0..;
    let mut write = async |count: usize| {
        for number in written.by_ref().take(count) {
            audit.write(&item(number)).await.expect("written");
        }
    };
    write(7).await;
    let first = audit.read(query(4)).await.expect("read");
    assert_eq!(numbers(&first.items), [0, 1, 2, 3]);
    write(2).await;
    let after = Query {
        after: first.next.clone(),
        ..query(100)
    };
    let seen = all(&audit, after.clone()).await;
    assert_eq!(seen, (4..9).collect::<Vec<_>>());
    // The place itself is gone: everything that is left is younger.
    write(30).await;
    assert_eq!(all(&audit, after).await, all(&audit, query(100)).await);
}
