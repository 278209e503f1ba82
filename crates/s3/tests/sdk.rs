//! The front end as the AWS SDK for Rust sees it, over HTTP on loopback.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

mod server;

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
    },
};
use server::{ME, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The code and status of a refusal.
fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(
    result: Result<T, SdkError<E>>,
) -> (String, u16) {
    let error = result.expect_err("a refusal");
    let status = error
        .raw_response()
        .map_or(0, |response| response.status().as_u16());
    (error.code().unwrap_or_default().to_owned(), status)
}

fn code(code: &str, status: u16) -> (String, u16) {
    (code.to_owned(), status)
}

async fn put(client: &Client, key: &str, body: &[u8]) {
    let body = ByteStream::from(body.to_vec());
    client
        .put_object()
        .bucket("bucket")
        .key(key)
        .body(body)
        .send()
        .await
        .expect("put");
}

async fn get(client: &Client, key: &str) -> Vec<u8> {
    let object = client
        .get_object()
        .bucket("bucket")
        .key(key)
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await;
    object.expect("get").body.collect().await.expect("body").to_vec()
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_sent() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    for algorithm in [
        None,
        Some("CRC32"),
        Some("CRC32C"),
        Some("CRC64NVME"),
        Some("SHA1"),
        Some("SHA256"),
    ] {
        let put = client
            .put_object()
            .bucket("bucket")
            .key("dir/ünï code+%20")
            .content_type("text/x-test")
            .metadata("who", "me")
            .cache_control("no-cache")
            .set_checksum_algorithm(algorithm.map(ChecksumAlgorithm::from))
            .body(ByteStream::from_static(b"hello"))
            .send()
            .await
            .expect("put");
        assert_eq!(put.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    }
    let object = client
        .get_object()
        .bucket("bucket")
        .key("dir/ünï code+%20")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (object.content_type(), object.cache_control()),
        (Some("text/x-test"), Some("no-cache"))
    );
    assert_eq!(
        (object.content_length(), object.content_encoding()),
        (Some(5), None)
    );
    assert_eq!(
        object.metadata().and_then(|m| m.get("who")).map(String::as_str),
        Some("me")
    );
    assert_eq!(object.body.collect().await.unwrap().to_vec(), b"hello");
    put_and_get_empty(&client).await;
}

async fn put_and_get_empty(client: &Client) {
    put(client, "empty", b"").await;
    assert_eq!(get(client, "empty").await, b"");
}

#[tokio::test]
async fn ranges_and_conditions_hold() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "k", b"0123456789").await;
    let range = async |range: &str| {
        let got = client
            .get_object()
            .bucket("bucket")
            .key("k")
            .range(range)
            .send()
            .await?;
        let told = got.content_range().unwrap_or_default().to_owned();
        Ok::<_, SdkError<_>>((told, got.body.collect().await.expect("body").to_vec()))
    };
    assert_eq!(
        range("bytes=2-4").await.unwrap(),
        ("bytes 2-4/10".to_owned(), b"234".to_vec())
    );
    assert_eq!(
        range("bytes=8-99").await.unwrap(),
        ("bytes 8-9/10".to_owned(), b"89".to_vec())
    );
    assert_eq!(
        range("bytes=-3").await.unwrap(),
        ("bytes 7-9/10".to_owned(), b"789".to_vec())
    );
    assert_eq!(refusal(range("bytes=10-").await), code("InvalidRange", 416));

    let etag = client
        .head_object()
        .bucket("bucket")
        .key("k")
        .send()
        .await
        .unwrap()
        .e_tag()
        .unwrap()
        .to_owned();
    let read = || client.get_object().bucket("bucket").key("k");
    read().if_match(&etag).send().await.expect("matches");
    assert_eq!(
        refusal(read().if_match("\"other\"").send().await),
        code("PreconditionFailed", 412)
    );
    assert_eq!(refusal(read().if_none_match(&etag).send().await).1, 304);
    let again = || {
        client
            .put_object()
            .bucket("bucket")
            .key("k")
            .body(ByteStream::from_static(b"x"))
    };
    assert_eq!(
        refusal(again().if_none_match("*").send().await),
        code("PreconditionFailed", 412)
    );
    again()
        .if_match(&etag)
        .send()
        .await
        .expect("the old one is still there");
    assert_eq!(
        refusal(again().if_match(&etag).send().await),
        code("PreconditionFailed", 412)
    );
}

#[tokio::test]
async fn a_body_that_is_not_what_was_claimed_changes_nothing() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "k", b"old").await;
    let lie = || {
        client
            .put_object()
            .bucket("bucket")
            .key("k")
            .body(ByteStream::from_static(b"new"))
    };
    assert_eq!(
        refusal(lie().checksum_crc32("AAAAAA==").send().await),
        code("BadDigest", 400)
    );
    assert_eq!(
        refusal(lie().content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").send().await),
        code("BadDigest", 400)
    );
    assert_eq!(get(&client, "k").await, b"old");
}

#[tokio::test]
async fn an_upload_cut_short_changes_nothing() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "k", b"old").await;
    let request = client.put_object().bucket("bucket").key("k").content_length(1000);
    let presigned = request
        .presigned(PresigningConfig::expires_in(Duration::from_secs(60)).unwrap())
        .await
        .unwrap();
    let target = presigned
        .uri()
        .split_once(&server.address.to_string())
        .expect("the path")
        .1;
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\nhalf",
        server.address
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(&client, "k").await, b"old");
}

#[tokio::test]
async fn a_body_announced_as_too_large_is_refused_before_it_is_sent() {
    const MOST: i64 = 5 << 30;
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    let upload = client.create_multipart_upload().bucket("bucket").key("k");
    let upload = upload.send().await.unwrap().upload_id.expect("an id");
    // What the server says to a head alone.
    let answer = async |length: i64, part: bool| {
        let lifetime = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let presigned = if part {
            let part = client.upload_part().bucket("bucket").key("k").upload_id(&upload);
            let part = part.part_number(1).content_length(length);
            part.presigned(lifetime).await.unwrap()
        } else {
            let put = client.put_object().bucket("bucket").key("k");
            put.content_length(length).presigned(lifetime).await.unwrap()
        };
        let address = server.address.to_string();
        let target = presigned.uri().split_once(&address).expect("the path").1;
        let head = format!(
            "PUT {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        );
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        socket.read_exact(&mut first).await.unwrap();
        let mut answer = String::from_utf8(first.to_vec()).unwrap();
        if !answer.ends_with("100") {
            socket.read_to_string(&mut answer).await.unwrap();
        }
        answer
    };
    for part in [false, true] {
        assert_eq!(answer(MOST, part).await, "HTTP/1.1 100");
        let refused = answer(MOST + 1, part).await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        assert!(refused.contains("<Code>EntityTooLarge</Code>"), "{refused}");
    }
}

#[tokio::test]
async fn every_account_and_key_gets_what_it_may() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "k", b"mine").await;
    let read = async |client: Client| refusal(client.get_object().bucket("bucket").key("k").send().await);
    assert_eq!(
        read(server.client("AKIDOTHER", "secret", None)).await,
        code("AccessDenied", 403)
    );
    assert_eq!(
        read(server.client("AKIDME", "wrong", None)).await,
        code("SignatureDoesNotMatch", 403)
    );
    assert_eq!(
        read(server.client("NOBODY", "secret", None)).await,
        code("InvalidAccessKeyId", 403)
    );
    assert_eq!(
        read(server.client("ASIAME", "secret", None)).await,
        code("InvalidToken", 400)
    );
    assert_eq!(
        read(server.client("ASIAME", "secret", Some("other"))).await,
        code("InvalidToken", 400)
    );
    assert_eq!(
        get(&server.client("ASIAME", "secret", Some("token")), "k").await,
        b"mine"
    );
    let taken = server
        .client("AKIDOTHER", "secret", None)
        .create_bucket()
        .bucket("bucket")
        .send()
        .await;
    assert_eq!(refusal(taken), code("BucketAlreadyExists", 409));
    client
        .create_bucket()
        .bucket("bucket")
        .send()
        .await
        .expect("one's own again, in us-east-1");
    let buckets = client.list_buckets().send().await.unwrap();
    assert_eq!(buckets.owner().and_then(|owner| owner.id()), Some(ME));
    assert_eq!(buckets.buckets().len(), 1);

    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let anonymous = format!(
        "GET /bucket/k HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address
    );
    socket.write_all(anonymous.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("<Code>AccessDenied</Code>"),
        "{answer}"
    );
}

#[tokio::test]
async fn listings_fold_and_page() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    for key in ["a", "a/b", "a/c/d", "b\u{1}", "ü/x", "z &<>"] {
        put(&client, key, b"x").await;
    }
    let list = || {
        client
            .list_objects_v2()
            .bucket("bucket")
            .encoding_type(aws_sdk_s3::types::EncodingType::Url)
    };
    let page = list().delimiter("/").send().await.unwrap();
    let keys: Vec<&str> = page.contents().iter().filter_map(|o| o.key()).collect();
    let prefixes: Vec<&str> = page.common_prefixes().iter().filter_map(|p| p.prefix()).collect();
    assert_eq!(
        (keys, prefixes),
        (vec!["a", "b%01", "z%20%26%3C%3E"], vec!["a/", "%C3%BC/"])
    );
    let mut found = Vec::new();
    let mut pages = client
        .list_objects_v2()
        .bucket("bucket")
        .prefix("a")
        .max_keys(1)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        found.extend(
            page.unwrap()
                .contents()
                .iter()
                .filter_map(|o| o.key())
                .map(str::to_owned),
        );
    }
    assert_eq!(found, ["a", "a/b", "a/c/d"]);
    let first = client
        .list_objects()
        .bucket("bucket")
        .delimiter("/")
        .max_keys(2)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (first.is_truncated(), first.next_marker()),
        (Some(true), Some("a/"))
    );
    assert_eq!(
        refusal(client.list_objects_v2().bucket("nowhere").send().await),
        code("NoSuchBucket", 404)
    );
}

#[tokio::test]
async fn parts_become_one_object_with_a_checksum_of_the_whole() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    let whole: Vec<u8> = (0..6_000_000u32).map(|n| (n % 251) as u8).collect();
    put(&client, "source", &whole[5 << 20..]).await;
    for (algorithm, composite) in [
        (ChecksumAlgorithm::Crc64Nvme, false),
        (ChecksumAlgorithm::Crc32, true),
    ] {
        let upload = client
            .create_multipart_upload()
            .bucket("bucket")
            .key("big")
            .content_type("x/y");
        let upload = upload.checksum_algorithm(algorithm.clone()).send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let first = client
            .upload_part()
            .bucket("bucket")
            .key("big")
            .upload_id(id)
            .part_number(1);
        let first = first
            .checksum_algorithm(algorithm)
            .body(ByteStream::from(whole[..5 << 20].to_vec()));
        let first = first.send().await.expect("part 1");
        let second = client
            .upload_part_copy()
            .bucket("bucket")
            .key("big")
            .upload_id(id)
            .part_number(4);
        let second = second.copy_source("bucket/source").send().await.expect("part 4");
        let listed = client
            .list_parts()
            .bucket("bucket")
            .key("big")
            .upload_id(id)
            .send()
            .await
            .unwrap();
        assert_eq!(
            listed
                .parts()
                .iter()
                .map(|p| p.part_number().unwrap())
                .collect::<Vec<_>>(),
            [1, 4]
        );
        let uploads = client
            .list_multipart_uploads()
            .bucket("bucket")
            .send()
            .await
            .unwrap();
        assert_eq!(uploads.uploads()[0].upload_id(), Some(id));
        let second = second.copy_part_result().unwrap().e_tag().unwrap();
        let done = CompletedMultipartUpload::builder()
            .parts(
                CompletedPart::builder()
                    .part_number(1)
                    .e_tag(first.e_tag().unwrap())
                    .build(),
            )
            .parts(CompletedPart::builder().part_number(4).e_tag(second).build())
            .build();
        let complete = client
            .complete_multipart_upload()
            .bucket("bucket")
            .key("big")
            .upload_id(id);
        let complete = complete.multipart_upload(done).send().await.expect("complete");
        assert!(complete.e_tag().unwrap().ends_with("-2\""));
        let told = if composite {
            complete.checksum_crc32()
        } else {
            complete.checksum_crc64_nvme()
        };
        assert_eq!(told.map(|value| value.ends_with("-2")), Some(composite));
        // With checksums on, the SDK itself compares a checksum of the whole with what it reads.
        assert_eq!(get(&client, "big").await, whole);
        let part = client
            .get_object()
            .bucket("bucket")
            .key("big")
            .part_number(2)
            .send()
            .await
            .unwrap();
        assert_eq!((part.parts_count(), part.content_type()), (Some(2), Some("x/y")));
        assert_eq!(part.body.collect().await.unwrap().to_vec(), &whole[5 << 20..]);
    }
    let upload = client
        .create_multipart_upload()
        .bucket("bucket")
        .key("gone")
        .send()
        .await
        .unwrap();
    let id = upload.upload_id().unwrap();
    client
        .abort_multipart_upload()
        .bucket("bucket")
        .key("gone")
        .upload_id(id)
        .send()
        .await
        .unwrap();
    let again = client
        .abort_multipart_upload()
        .bucket("bucket")
        .key("gone")
        .upload_id(id)
        .send()
        .await;
    assert_eq!(refusal(again), code("NoSuchUpload", 404));
}

#[tokio::test]
async fn copies_keep_or_replace_what_was_said() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    let body = ByteStream::from_static(b"x");
    client
        .put_object()
        .bucket("bucket")
        .key("a")
        .metadata("who", "me")
        .body(body)
        .send()
        .await
        .unwrap();
    client
        .copy_object()
        .bucket("bucket")
        .key("b")
        .copy_source("bucket/a")
        .send()
        .await
        .unwrap();
    let kept = client
        .head_object()
        .bucket("bucket")
        .key("b")
        .send()
        .await
        .unwrap();
    assert_eq!(
        kept.metadata().and_then(|m| m.get("who")).map(String::as_str),
        Some("me")
    );
    let same = client
        .copy_object()
        .bucket("bucket")
        .key("a")
        .copy_source("bucket/a");
    assert_eq!(refusal(same.clone().send().await), code("InvalidRequest", 400));
    let directive = aws_sdk_s3::types::MetadataDirective::Replace;
    same.metadata_directive(directive)
        .metadata("who", "you")
        .send()
        .await
        .unwrap();
    let replaced = client
        .head_object()
        .bucket("bucket")
        .key("a")
        .send()
        .await
        .unwrap();
    assert_eq!(
        replaced.metadata().and_then(|m| m.get("who")).map(String::as_str),
        Some("you")
    );
    assert_eq!(get(&client, "a").await, b"x");
    let missing = client
        .copy_object()
        .bucket("bucket")
        .key("c")
        .copy_source("bucket/none")
        .send()
        .await;
    assert_eq!(refusal(missing), code("NoSuchKey", 404));
}

#[tokio::test]
async fn deleting_many_empties_the_bucket() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "a", b"x").await;
    put(&client, "b", b"x").await;
    assert_eq!(
        refusal(client.delete_bucket().bucket("bucket").send().await),
        code("BucketNotEmpty", 409)
    );
    let keys = ["a", "b", "never"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let delete = Delete::builder()
        .set_objects(Some(keys.to_vec()))
        .build()
        .unwrap();
    let deleted = client
        .delete_objects()
        .bucket("bucket")
        .delete(delete)
        .send()
        .await
        .unwrap();
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (3, 0));
    client.delete_bucket().bucket("bucket").send().await.unwrap();
    assert_eq!(refusal(client.head_bucket().bucket("bucket").send().await).1, 404);
    assert!(server.dir.path().join("index.db").exists());
}

#[tokio::test]
async fn a_presigned_url_works_without_a_header() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "k", b"hello").await;
    let presigned = client.get_object().bucket("bucket").key("k");
    let presigned = presigned
        .presigned(PresigningConfig::expires_in(Duration::from_secs(60)).unwrap())
        .await
        .unwrap();
    let target = presigned
        .uri()
        .split_once(&server.address.to_string())
        .expect("the path")
        .1
        .to_owned();
    let fetch = async |target: String| {
        let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            server.address
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(fetch(target.clone()).await.ends_with("hello"));
    let forged = fetch(target.replace("/bucket/k", "/bucket/j")).await;
    assert!(forged.contains("SignatureDoesNotMatch"), "{forged}");
}

#[tokio::test]
async fn what_the_guard_refuses_is_refused_by_every_way_to_it() {
    let server = Server::start().await;
    let client = server.me();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    put(&client, "open", b"x").await;
    let denied = code("AccessDenied", 403);
    let object = |key: &str| {
        let identifier = aws_sdk_s3::types::ObjectIdentifier::builder().key(key).build();
        identifier.expect("a key")
    };
    let get = client.get_object().bucket("bucket").key("secret").send().await;
    assert_eq!(refusal(get), denied);
    let put = client.put_object().bucket("bucket").key("secret").send().await;
    assert_eq!(refusal(put), denied);
    let from = client
        .copy_object()
        .bucket("bucket")
        .key("copy")
        .copy_source("bucket/secret")
        .send()
        .await;
    assert_eq!(refusal(from), denied);
    let to = client
        .copy_object()
        .bucket("bucket")
        .key("secret")
        .copy_source("bucket/open")
        .send()
        .await;
    assert_eq!(refusal(to), denied);
    let delete = aws_sdk_s3::types::Delete::builder()
        .objects(object("open"))
        .objects(object("secret"))
        .build()
        .expect("objects");
    let deleted = client
        .delete_objects()
        .bucket("bucket")
        .delete(delete)
        .send()
        .await;
    assert_eq!(refusal(deleted), denied);
    assert_eq!(crate::get(&client, "open").await, b"x");
}
