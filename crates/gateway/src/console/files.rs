//! Files: `/hearth/v1/files?path=`, an extension of ours (docs/openapi-endpoint.yaml). Contents stream both ways.

use std::io;

use bytes::Bytes;
use futures::stream::try_unfold;
use hearth_agent_protocol::{
    FileAction, FileChunk, FileFailure, FileInfo, FileKind, FileOwnership, FileRequest, Reply, receive, send,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::agent;
use crate::body::{Produced, ResponseBody};
use crate::meter::Meter;
use crate::respond::Refusal;

/// Most bytes of content in one frame to the agent.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    path: String,
    format: Option<Format>,
    /// Octal.
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    #[serde(default)]
    owners: bool,
    #[serde(default)]
    recursive: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Format {
    Raw,
    List,
    Stat,
    Tar,
}

/// An answer that is no success.
struct Problem {
    status: StatusCode,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        Problem {
            status,
            message: message.into(),
        }
    }

    fn gateway(error: &io::Error) -> Problem {
        tracing::debug!(%error, "the agent does not answer");
        Problem::new(StatusCode::BAD_GATEWAY, "the guest does not answer")
    }
}

impl From<FileFailure> for Problem {
    fn from(failure: FileFailure) -> Problem {
        // Numbers of Linux, the same on every machine that guests have.
        let status = match failure.errno {
            1 | 13 | 30 => StatusCode::FORBIDDEN,
            2 => StatusCode::NOT_FOUND,
            16 | 17 | 20 | 21 | 26 | 39 => StatusCode::CONFLICT,
            22 | 36 | 40 => StatusCode::BAD_REQUEST,
            27 | 28 | 122 => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, agent::one_line(&failure.cause))
    }
}

type Answer<T = Response<ResponseBody>> = Result<T, Problem>;

pub(super) async fn answer(
    request: Request<Incoming>,
    meter: Meter,
) -> Result<Response<ResponseBody>, Refusal> {
    let answered = tokio::select! {
        answered = act(request, &meter) => answered,
        () = meter.passage.ended() => return Err(Refusal::BadGateway),
    };
    Ok(answered.unwrap_or_else(|problem| {
        let mut response = json_response(&json!({ "message": problem.message }));
        *response.status_mut() = problem.status;
        response
    }))
}

async fn act(request: Request<Incoming>, meter: &Meter) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let query: Query = serde_urlencoded::from_str(query).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the query is not valid: {error}"),
        )
    })?;
    let path = query.path.clone();
    let on = |action| FileRequest {
        path: path.clone(),
        action,
    };
    match (request.method(), query.format) {
        (&Method::HEAD, _) | (&Method::GET, Some(Format::Stat)) => {
            let (info, _) = look(meter, on(FileAction::Describe)).await?;
            let mut response = json_response(&info_json(&info));
            describe(&mut response, &info);
            Ok(response)
        }
        (&Method::GET, None | Some(Format::Raw)) => match look(meter, on(FileAction::Read)).await {
            // EISDIR
            Err(problem) if problem.status == StatusCode::CONFLICT && query.format.is_none() => {
                let (info, agent) = look(meter, on(FileAction::List)).await?;
                Ok(list(&info, agent, meter.clone()))
            }
            read => read.map(|(info, agent)| raw(&info, agent, meter.clone())),
        },
        (&Method::GET, Some(Format::List)) => {
            let (info, agent) = look(meter, on(FileAction::List)).await?;
            Ok(list(&info, agent, meter.clone()))
        }
        (&Method::GET, Some(Format::Tar)) => {
            let (info, agent) = look(meter, on(FileAction::Pack)).await?;
            let body = content(agent, meter.clone(), None);
            let mut response = stream_response(body, "application/x-tar");
            describe(&mut response, &info);
            Ok(response)
        }
        (&Method::PUT, None | Some(Format::Raw)) => {
            let ownership = FileOwnership {
                mode: query.mode.as_deref().map(mode).transpose()?,
                uid: query.uid,
                gid: query.gid,
            };
            match change(meter, on(FileAction::Write(ownership)), Some(request)).await? {
                Reply::File(info) => Ok(json_response(&info_json(&info))),
                other => Err(unexpected(other)),
            }
        }
        (&Method::PUT, Some(Format::Tar)) => {
            let action = FileAction::Unpack { owners: query.owners };
            done(change(meter, on(action), Some(request)).await?)
        }
        (&Method::DELETE, None) => {
            let action = FileAction::Remove {
                recursive: query.recursive,
            };
            done(change(meter, on(action), None).await?)
        }
        (&Method::PUT | &Method::DELETE, _) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "this method does not know that format",
        )),
        _ => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "the methods are GET, HEAD, PUT and DELETE",
        )),
    }
}

fn mode(text: &str) -> Answer<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "mode is an octal number up to 7777"))
}

/// Asks about a file; content follows on the connection.
async fn look(meter: &Meter, request: FileRequest) -> Answer<(FileInfo, TcpStream)> {
    let request = hearth_agent_protocol::Request::Files(request);
    let answered = async {
        let mut agent = agent::ask(&*meter.passage, &request).await?;
        let reply = agent::reply(&mut agent).await?;
        io::Result::Ok((reply, agent))
    };
    match answered.await.map_err(|error| Problem::gateway(&error))? {
        (Reply::File(info), agent) => Ok((info, agent)),
        (other, _) => Err(unexpected(other)),
    }
}

/// Changes a file, by the request's body where there is one.
async fn change(meter: &Meter, request: FileRequest, body: Option<Request<Incoming>>) -> Answer<Reply> {
    let request = hearth_agent_protocol::Request::Files(request);
    let agent = agent::ask(&*meter.passage, &request)
        .await
        .map_err(|error| Problem::gateway(&error))?;
    let (mut from_agent, mut to_agent) = agent.into_split();
    let upload = async {
        let mut body = match body {
            Some(request) => request.into_body(),
            None => return Ok(()),
        };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            meter.up_in_turn(data.len()).await;
            for piece in data.chunks(CHUNK_BYTES) {
                if send(&mut to_agent, &FileChunk::Data(piece.to_vec()))
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
        // An agent that does not listen any more has said why.
        let _told = send(&mut to_agent, &FileChunk::End).await;
        Ok::<_, hyper::Error>(())
    };
    let reply = async { receive(&mut from_agent).await };
    tokio::pin!(reply);
    let reply = tokio::select! {
        reply = &mut reply => reply,
        uploaded = upload => match uploaded {
            Ok(()) => reply.await,
            // The agent drops what it has when the connection ends.
            Err(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "the content ended early")),
        },
    };
    match reply {
        Ok(Some(Reply::FileRefused(failure))) => Err(failure.into()),
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(Problem::gateway(&io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(Problem::gateway(&io::Error::other(error))),
    }
}

fn done(reply: Reply) -> Answer {
    match reply {
        Reply::Done => {
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> Problem {
    match reply {
        Reply::FileRefused(failure) => failure.into(),
        Reply::Failed(cause) | Reply::Refused(cause) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, agent::one_line(&cause))
        }
        _ => Problem::new(
            StatusCode::BAD_GATEWAY,
            "the guest gave an answer that does not fit",
        ),
    }
}

fn raw(info: &FileInfo, agent: TcpStream, meter: Meter) -> Response<ResponseBody> {
    let body = content(agent, meter, Some(info.bytes));
    let mut response = stream_response(body, "application/octet-stream");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, info.bytes.into());
    describe(&mut response, info);
    response
}

/// The bytes that the agent sends, up to its end; exactly `expected` of them if that is known.
fn content(agent: TcpStream, meter: Meter, expected: Option<u64>) -> Produced {
    let stream = try_unfold((agent, meter, 0), move |(mut agent, meter, sent)| async move {
        match next(&mut agent, &meter).await? {
            FileChunk::Data(bytes) => {
                meter.down_in_turn(bytes.len()).await;
                let sent = sent + bytes.len() as u64;
                if expected.is_some_and(|expected| sent > expected) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(Some((Frame::data(Bytes::from(bytes)), (agent, meter, sent))))
            }
            FileChunk::End if expected.is_none_or(|expected| sent == expected) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    });
    StreamBody::new(stream).boxed_unsync()
}

fn list(info: &FileInfo, agent: TcpStream, meter: Meter) -> Response<ResponseBody> {
    let first = r#"{"entries":["#.to_owned();
    let stream = try_unfold(Some((agent, meter, first)), |state| async move {
        let Some((mut agent, meter, before)) = state else {
            return Ok(None);
        };
        match next(&mut agent, &meter).await? {
            FileChunk::Entry(info) => {
                let text = format!("{before}{}", info_json(&info));
                meter.down_in_turn(text.len()).await;
                let state = Some((agent, meter, ",".to_owned()));
                Ok(Some((Frame::data(Bytes::from(text)), state)))
            }
            FileChunk::End => {
                let start = if before == "," { "" } else { before.as_str() };
                Ok(Some((Frame::data(Bytes::from(format!("{start}]}}"))), None)))
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    });
    let mut response = stream_response(StreamBody::new(stream).boxed_unsync(), "application/json");
    describe(&mut response, info);
    response
}

async fn next(agent: &mut TcpStream, meter: &Meter) -> io::Result<FileChunk> {
    meter.passage.touch();
    let chunk = tokio::select! {
        chunk = receive(agent) => chunk.map_err(io::Error::other)?,
        () = meter.passage.ended() => None,
    };
    chunk.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn stream_response(body: Produced, content_type: &'static str) -> Response<ResponseBody> {
    with_type(Response::new(Either::Right(Either::Right(body))), content_type)
}

fn json_response(value: &Value) -> Response<ResponseBody> {
    let body = Either::Left(Full::new(Bytes::from(value.to_string())));
    with_type(Response::new(body), "application/json")
}

fn with_type(mut response: Response<ResponseBody>, content_type: &'static str) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-store"),
    );
    response
}

fn describe(response: &mut Response<ResponseBody>, info: &FileInfo) {
    let headers = response.headers_mut();
    headers.insert("x-hearth-kind", HeaderValue::from_static(kind(info.kind)));
    for (name, value) in [
        ("x-hearth-mode", format!("{:04o}", info.mode & 0o7777)),
        ("x-hearth-uid", info.uid.to_string()),
        ("x-hearth-gid", info.gid.to_string()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Other => "other",
    }
}

fn info_json(info: &FileInfo) -> Value {
    let mut value = json!({
        "name": info.name,
        "kind": kind(info.kind),
        "bytes": info.bytes,
        "mode": format!("{:04o}", info.mode & 0o7777),
        "uid": info.uid,
        "gid": info.gid,
        "modified": info.modified_ns as f64 / 1e9,
    });
    if let Some(target) = &info.target {
        value["target"] = target.as_str().into();
    }
    value
}
