//! Files into the object store.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::ProgressBar;
use ring::digest::{Context as Digest, SHA256};

use crate::error::{Error, Result};
use crate::output::{byte_bar, spinner};
use crate::service::Service;

/// Puts the file under `<folder>/<its SHA-256><extension>` into the account's bucket for artifacts,
/// which is created when it is missing, and answers its `s3://` URI. A file that is there already
/// is not sent again.
pub(crate) async fn upload(service: &Service, file: &Path, folder: &str, extension: &str) -> Result<String> {
    let bucket = format!("hearth-artifacts-{}", service.account().await?);
    let length = std::fs::metadata(file).map_err(Error::file(file))?.len();
    let key = format!("{folder}/{}{extension}", sha256(file)?);
    let s3 = service.s3();
    let there = s3.head_object().bucket(&bucket).key(&key).send().await;
    if there.is_ok_and(|object| object.content_length.and_then(|n| u64::try_from(n).ok()) == Some(length)) {
        return Ok(format!("s3://{bucket}/{key}"));
    }
    create_bucket(service, &s3, &bucket).await?;
    let bar = byte_bar("uploading", length);
    let body = ByteStream::from_path(file).await;
    let body = body.map_err(|error| Error::failed(format!("{}: {error}", file.display()), ""))?;
    let counted = bar.clone();
    let body = body.into_inner().map(move |inner| {
        counted.set_position(0); // each attempt starts anew
        SdkBody::from_body_1_x(Counted {
            inner,
            bar: counted.clone(),
        })
    });
    let put = s3
        .put_object()
        .bucket(&bucket)
        .key(&key)
        .body(ByteStream::new(body))
        .send()
        .await;
    bar.finish_and_clear();
    put.map_err(|error| service.error(error))?;
    Ok(format!("s3://{bucket}/{key}"))
}

async fn create_bucket(service: &Service, s3: &aws_sdk_s3::Client, bucket: &str) -> Result<()> {
    let region = service.settings.region.as_str();
    // The first region of the service is the one that must not be named.
    let place = (region != "us-east-1").then(|| {
        let place = BucketLocationConstraint::from(region);
        CreateBucketConfiguration::builder()
            .location_constraint(place)
            .build()
    });
    let created = s3
        .create_bucket()
        .bucket(bucket)
        .set_create_bucket_configuration(place)
        .send()
        .await;
    match created {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some("BucketAlreadyOwnedByYou")) => Ok(()),
        Err(error) => Err(service.error(error)),
    }
}

fn sha256(path: &Path) -> Result<String> {
    let bar = spinner("reading the file");
    let mut file = std::fs::File::open(path).map_err(Error::file(path))?;
    let mut digest = HashWriter(Digest::new(&SHA256));
    std::io::copy(&mut file, &mut digest).map_err(Error::file(path))?;
    bar.finish_and_clear();
    Ok(digest
        .0
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

struct HashWriter(Digest);

impl std::io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A body that moves a bar as it is read.
struct Counted {
    inner: SdkBody,
    bar: ProgressBar,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = <SdkBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.bar.inc(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}
