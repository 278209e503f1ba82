//! Serves S3 out of a directory, to try clients against: `serve DIR PORT`.
//! Key `AKIDEXAMPLE`, secret `secret`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use hearth_s3::{S3, SecretKeys};
use hearth_storage::objects::Objects;
use hearth_wire::{ApiError, Call, ErrorKind, Guard};

struct OneKey;

#[async_trait::async_trait]
impl SecretKeys for OneKey {
    async fn secret(&self, access_key_id: &str) -> Option<String> {
        (access_key_id == "AKIDEXAMPLE").then(|| "secret".into())
    }

    async fn account(&self, _access_key_id: &str, session_token: Option<&str>) -> Result<String, ApiError> {
        match session_token {
            None => Ok("111111111111".into()),
            Some(_) => Err(ApiError::silent(ErrorKind::UnrecognizedClient)),
        }
    }
}

#[async_trait::async_trait]
impl Guard for OneKey {
    async fn admit(&self, _call: &Call) -> Result<(), ApiError> {
        Ok(())
    }

    async fn ended(&self, _call: &Call, _status: u16, _error: Option<&str>) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("serve DIR PORT".into());
    };
    let service = S3::new(
        Objects::open(&PathBuf::from(dir)).await?,
        Arc::new(OneKey),
        Arc::new(OneKey),
    );
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port.parse()?))).await?;
    loop {
        let (connection, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, std::convert::Infallible>(service.call(request).await) }
            });
            let io = hyper_util::rt::TokioIo::new(connection);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, answer)
                .await;
        });
    }
}
