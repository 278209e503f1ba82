//! The store's promises, told from outside.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

use super::*;

const ME: &str = "111111111111";
const OTHER: &str = "222222222222";

async fn store() -> (tempfile::TempDir, Objects) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let objects = Objects::open(dir.path()).await.expect("a new store opens");
    objects
        .create_bucket(ME, "bucket", "us-east-1")
        .await
        .expect("a bucket");
    (dir, objects)
}

fn body(data: impl Into<Bytes>) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::iter([Ok(data.into())])
}

async fn put(objects: &Objects, key: &str, data: &str) -> ObjectInfo {
    objects
        .put(ME, "bucket", key, body(data.to_owned()), &NewObject::default())
        .await
        .expect("put")
}

async fn read(objects: &Objects, key: &str) -> Vec<u8> {
    let object = objects.get(ME, "bucket", key).await.expect("get");
    object
        .stream(None)
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend(chunk);
            Ok(all)
        })
        .await
        .expect("read")
}

fn files(dir: &Path) -> usize {
    let shards = std::fs::read_dir(dir.join("blobs")).expect("blobs");
    shards
        .map(|shard| {
            std::fs::read_dir(shard.expect("shard").path())
                .expect("shard")
                .count()
        })
        .sum()
}

#[tokio::test]
async fn every_key_is_a_key_and_survives_a_reopen() {
    let (dir, objects) = store().await;
    let long = "k".repeat(1024);
    let keys = [
        "a",
        "a/b",
        "a/",
        "/",
        "//",
        "../../etc/passwd",
        ".",
        "ünï/コード",
        "new\nline",
        "%2e%2e",
        "a#1",
        &long,
    ];
    for key in keys {
        put(&objects, key, key).await;
    }
    drop(objects);
    let objects = Objects::open(dir.path()).await.expect("reopen");
    for key in keys {
        assert_eq!(read(&objects, key).await, key.as_bytes());
    }
    let over = "k".repeat(1025);
    for (key, wanted) in [("", "InvalidKey"), (over.as_str(), "KeyTooLong")] {
        let error = objects
            .put(ME, "bucket", key, body("x"), &NewObject::default())
            .await
            .expect_err("refused");
        assert_eq!(format!("{error:?}"), wanted);
    }
}

#[tokio::test]
async fn an_object_keeps_what_was_said_of_it() {
    let (_dir, objects) = store().await;
    let new = NewObject {
        storage_class: Some("GLACIER".into()),
        attributes: Attributes {
            content_type: Some("application/zip".into()),
            user: [("who".to_owned(), "me".to_owned())].into(),
            ..Default::default()
        },
    };
    objects
        .put(ME, "bucket", "k", body("hello"), &new)
        .await
        .expect("put");
    let info = objects.head(ME, "bucket", "k").await.expect("head");
    assert_eq!(
        (info.etag.as_str(), info.size),
        ("5d41402abc4b2a76b9719d911017c592", 5)
    );
    assert_eq!(
        (info.storage_class.as_str(), info.attributes),
        ("GLACIER", new.attributes)
    );
}

#[tokio::test]
async fn accounts_are_strictly_apart() {
    let (_dir, objects) = store().await;
    put(&objects, "k", "mine").await;
    let denied = |e: ObjectsError| matches!(e, ObjectsError::AccessDenied);
    assert!(denied(
        objects.get(OTHER, "bucket", "k").await.expect_err("foreign")
    ));
    assert!(denied(
        objects
            .put(OTHER, "bucket", "k", body("x"), &NewObject::default())
            .await
            .expect_err("foreign")
    ));
    assert!(denied(
        objects
            .delete(OTHER, "bucket", "k", &Precondition::Always)
            .await
            .expect_err("foreign")
    ));
    assert!(denied(
        objects
            .list(OTHER, "bucket", &ListQuery::default())
            .await
            .expect_err("foreign")
    ));
    assert!(denied(
        objects.delete_bucket(OTHER, "bucket").await.expect_err("foreign")
    ));
    let taken = objects
        .create_bucket(OTHER, "bucket", "us-east-1")
        .await
        .expect_err("taken");
    assert!(matches!(taken, ObjectsError::BucketAlreadyExists));
    assert_eq!(objects.list_buckets(OTHER).await.expect("list"), []);
    assert_eq!(read(&objects, "k").await, b"mine");
}

#[tokio::test]
async fn a_failed_body_leaves_the_old_object_and_no_file() {
    let (dir, objects) = store().await;
    put(&objects, "k", "old").await;
    let broken = futures::stream::iter([Ok(Bytes::from("half")), Err(std::io::Error::other("gone"))]);
    let error = objects
        .put(ME, "bucket", "k", broken, &NewObject::default())
        .await
        .expect_err("broken");
    assert!(matches!(error, ObjectsError::Body(_)));
    assert_eq!(read(&objects, "k").await, b"old");
    drop(objects);
    Objects::open(dir.path()).await.expect("reopen");
    assert_eq!(files(dir.path()), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_leaves_no_file() {
    let (dir, objects) = store().await;
    let staged = objects
        .blobs
        .stage(body("12345"), 5)
        .await
        .expect("the limit itself");
    assert_eq!(files(dir.path()), 1);
    drop(staged);
    let error = objects
        .blobs
        .stage(body("123456"), 5)
        .await
        .expect_err("too large");
    assert!(matches!(error, ObjectsError::EntityTooLarge));
    drop(objects);
    Objects::open(dir.path()).await.expect("reopen");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn opening_sweeps_what_no_object_names() {
    let (dir, objects) = store().await;
    put(&objects, "k", "kept").await;
    let staged = objects.stage(body("orphan")).await.expect("stage");
    staged.keep(); // as a crash between the blob and its row leaves it
    let shard = dir.path().join("blobs/ab");
    std::fs::create_dir_all(&shard).expect("shard");
    std::fs::write(shard.join("abcdef#1"), "torn").expect("staged file");
    assert_eq!(files(dir.path()), 3);
    drop(objects);
    let objects = Objects::open(dir.path()).await.expect("reopen");
    assert_eq!(files(dir.path()), 1);
    assert_eq!(read(&objects, "k").await, b"kept");
}

#[tokio::test]
async fn a_reader_keeps_the_object_it_opened() {
    let (_dir, objects) = store().await;
    put(&objects, "k", "first").await;
    let open = objects.get(ME, "bucket", "k").await.expect("get");
    put(&objects, "k", "second").await;
    objects
        .delete(ME, "bucket", "k", &Precondition::Always)
        .await
        .expect("delete");
    let read: Vec<Bytes> = open.stream(Some(1..4)).try_collect().await.expect("still there");
    assert_eq!(read.concat(), b"irs");
    assert!(matches!(
        objects.get(ME, "bucket", "k").await.expect_err("deleted"),
        ObjectsError::NoSuchKey
    ));
}

#[tokio::test]
async fn only_the_writer_whose_condition_holds_wins() {
    let (_dir, objects) = store().await;
    let new = NewObject::default();
    let write = async |text: &'static str, condition: Precondition| {
        let staged = objects.stage(body(text)).await.expect("stage");
        objects.commit(ME, "bucket", "k", staged, &new, &condition).await
    };
    assert!(matches!(
        write("0", Precondition::Etag("x".into())).await,
        Err(ObjectsError::NoSuchKey)
    ));
    let first = write("1", Precondition::Absent).await.expect("absent");
    assert!(matches!(
        write("2", Precondition::Absent).await,
        Err(ObjectsError::PreconditionFailed)
    ));
    write("3", Precondition::Etag(first.etag.clone()))
        .await
        .expect("etag holds");
    assert!(matches!(
        write("4", Precondition::Etag(first.etag)).await,
        Err(ObjectsError::PreconditionFailed)
    ));
    assert_eq!(read(&objects, "k").await, b"3");
}

#[tokio::test]
async fn many_parts_become_one_object() {
    let (dir, objects) = store().await;
    let id = objects
        .create_upload(ME, "bucket", "big", &NewObject::default())
        .await
        .expect("create");
    let five = vec![b'a'; 5 << 20];
    let mut done = Vec::new();
    for (number, data) in [
        (7, Bytes::from("tail")),
        (2, Bytes::from(five.clone())),
        (5, Bytes::from("unused")),
        (9, Bytes::new()),
    ] {
        let staged = objects.stage(body(data)).await.expect("stage");
        let part = objects
            .put_part(ME, "bucket", "big", &id, number, staged, None)
            .await
            .expect("part");
        done.push(CompletedPart {
            number,
            etag: part.etag,
        });
    }
    let complete = async |parts: &[CompletedPart]| {
        objects
            .complete_upload(ME, "bucket", "big", &id, parts, None, &Precondition::Always)
            .await
    };
    assert!(matches!(complete(&[]).await, Err(ObjectsError::InvalidPart)));
    assert!(matches!(
        complete(&[done[0].clone(), done[1].clone()]).await,
        Err(ObjectsError::InvalidPartOrder)
    ));
    assert!(matches!(
        complete(&[done[0].clone(), done[3].clone()]).await,
        Err(ObjectsError::EntityTooSmall)
    ));
    let info = complete(&[done[1].clone(), done[0].clone()])
        .await
        .expect("complete");
    // md5(md5(five) + md5("tail"))-2, computed elsewhere.
    assert_eq!(info.etag, "30dcfd3901d1c613b7fb532281748544-2");
    assert_eq!(read(&objects, "big").await, [five.as_slice(), b"tail"].concat());
    let open = objects.get(ME, "bucket", "big").await.expect("get");
    let seam: Vec<Bytes> = open
        .stream(Some((5 << 20) - 1..(5 << 20) + 2))
        .try_collect()
        .await
        .expect("range");
    assert_eq!(seam.concat(), b"ata");
    assert!(matches!(complete(&done).await, Err(ObjectsError::NoSuchUpload)));
    assert_eq!(files(dir.path()), 2);

    let source = objects.get(ME, "bucket", "big").await.expect("get");
    objects
        .copy(
            ME,
            source,
            "bucket",
            "copy",
            &NewObject::default(),
            &Precondition::Always,
        )
        .await
        .expect("copy");
    objects
        .delete(ME, "bucket", "big", &Precondition::Always)
        .await
        .expect("delete");
    assert_eq!(read(&objects, "copy").await.len(), five.len() + 4);
}

#[tokio::test]
async fn a_bucket_goes_only_when_empty_and_takes_its_uploads_along() {
    let (dir, objects) = store().await;
    put(&objects, "k", "x").await;
    assert!(matches!(
        objects.delete_bucket(ME, "bucket").await,
        Err(ObjectsError::BucketNotEmpty)
    ));
    objects
        .delete(ME, "bucket", "k", &Precondition::Always)
        .await
        .expect("delete");
    let id = objects
        .create_upload(ME, "bucket", "k", &NewObject::default())
        .await
        .expect("create");
    let staged = objects.stage(body("part")).await.expect("stage");
    objects
        .put_part(ME, "bucket", "k", &id, 1, staged, None)
        .await
        .expect("part");
    objects.delete_bucket(ME, "bucket").await.expect("empty");
    assert_eq!(files(dir.path()), 0);
    assert!(matches!(
        objects.head_bucket(ME, "bucket").await,
        Err(ObjectsError::NoSuchBucket)
    ));
}

#[tokio::test]
async fn the_build_learns_why_it_cannot_fetch() {
    let (_dir, objects) = store().await;
    let cold = NewObject {
        storage_class: Some("DEEP_ARCHIVE".into()),
        ..Default::default()
    };
    objects
        .put(ME, "bucket", "cold", body("x"), &cold)
        .await
        .expect("put");
    put(&objects, "warm", "x").await;
    let code = async |account, region, bucket, key| match objects.fetch(account, region, bucket, key).await {
        Ok(_) => "fetched",
        Err(error) => error.build_code(),
    };
    assert_eq!(code(ME, None, "nowhere", "k").await, "S3_NO_SUCH_BUCKET");
    assert_eq!(code(ME, None, "bucket", "k").await, "S3_NO_SUCH_KEY");
    assert_eq!(code(OTHER, None, "bucket", "warm").await, "S3_ACCESS_DENIED");
    assert_eq!(code(ME, None, "bucket", "cold").await, "S3_INVALID_OBJECT");
    assert_eq!(
        code(ME, Some("eu-west-1"), "bucket", "warm").await,
        "S3_CROSS_REGION_ACCESS_DENIED"
    );
    assert_eq!(code(ME, Some("us-east-1"), "bucket", "warm").await, "fetched");
}

#[tokio::test]
async fn a_folder_of_many_keys_is_one_common_prefix() {
    let (_dir, objects) = store().await;
    let mut tx = objects.index.write().await.expect("write");
    for at in 0..2500 {
        sqlx::query("INSERT INTO objects VALUES ('bucket', ?, '', 0, 0, 'STANDARD', '{}', '[]')")
            .bind(format!("many/{at:04}"))
            .execute(&mut *tx)
            .await
            .expect("insert");
    }
    tx.commit().await.expect("commit");
    put(&objects, "zoo", "x").await;
    let query = ListQuery {
        delimiter: Some("/".into()),
        limit: 10,
        ..Default::default()
    };
    let page = objects.list(ME, "bucket", &query).await.expect("list");
    assert_eq!(
        (page.prefixes, page.objects.len(), page.next),
        (vec!["many/".to_owned()], 1, None)
    );
    let query = ListQuery {
        prefix: "many/".into(),
        limit: 5000,
        ..Default::default()
    };
    assert_eq!(
        objects
            .list(ME, "bucket", &query)
            .await
            .expect("list")
            .objects
            .len(),
        2500
    );
}

/// What S3 says a listing is, computed the slow way.
fn expected(keys: &[String], prefix: &str, delimiter: Option<&str>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let entry = match delimiter.and_then(|d| rest.find(d).map(|at| at + d.len())) {
            Some(end) => format!("{prefix}{}", &rest[..end]),
            None => key.clone(),
        };
        if seen.last() != Some(&entry) {
            seen.push(entry);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pages_add_up_to_the_whole_listing(
        keys in proptest::collection::btree_set("[ab/\u{d7ff}\u{10ffff}]{1,5}", 0..24),
        prefix in "[ab/]{0,2}",
        delimiter in proptest::option::of("[/b]"),
        limit in 1usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (_dir, objects) = store().await;
            let mut tx = objects.index.write().await.expect("write");
            for key in &keys {
                sqlx::query("INSERT INTO objects VALUES ('bucket', ?, '', 0, 0, 'STANDARD', '{}', '[]')")
                    .bind(key).execute(&mut *tx).await.expect("insert");
            }
            tx.commit().await.expect("commit");
            let keys: Vec<String> = keys.into_iter().collect();
            let mut query = ListQuery { prefix: prefix.clone(), delimiter: delimiter.clone(), after: None, limit };
            let mut all = Vec::new();
            loop {
                let page = objects.list(ME, "bucket", &query).await.expect("list");
                let mut entries: Vec<String> = page.objects.into_iter().map(|o| o.key).chain(page.prefixes).collect();
                assert!(entries.len() <= limit);
                entries.sort();
                all.extend(entries);
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            assert_eq!(all, expected(&keys, &prefix, delimiter.as_deref()));
        });
    }
}

#[tokio::test]
async fn a_large_body_is_written_and_read_in_bounded_chunks() {
    let (_dir, objects) = store().await;
    let chunks = futures::stream::iter(
        (0..300u32).map(|n| Ok::<_, std::io::Error>(Bytes::from(vec![n as u8; 30_000]))),
    );
    objects
        .put(ME, "bucket", "k", chunks, &NewObject::default())
        .await
        .expect("put");
    let mut stream = std::pin::pin!(objects.get(ME, "bucket", "k").await.expect("get").stream(None));
    let mut at = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.expect("chunk");
        assert!(chunk.len() <= 256 << 10);
        for byte in chunk {
            assert_eq!(byte, (at / 30_000) as u8);
            at += 1;
        }
    }
    assert_eq!(at, 9_000_000);
}
