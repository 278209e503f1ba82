//! QMP: one connection to one QEMU process.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use futures::StreamExt;
use qapi::{
    futures::{QapiService, QmpStreamTokio},
    qmp,
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, ReadBuf, ReadHalf, WriteHalf},
    net::UnixStream,
    sync::{mpsc, watch},
};

use crate::{
    driver::{Disk, DiskLimits, VmmError},
    process::{Process, connect_when_there},
};

/// The largest limit that QEMU takes.
const LARGEST_LIMIT: u64 = 1_000_000_000_000_000;

/// Bytes of the longest answer that is read; those that hearth asks for have a few hundred.
const LONGEST_LINE: usize = 1 << 20;

type Service = QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>;

/// Commands and the two events that matter: the guest runs, the guest stands still.
pub(super) struct Monitor {
    service: Arc<Service>,
    /// Number of times the guest was seen to start or go on.
    resumed: watch::Receiver<u64>,
}

impl Monitor {
    /// Connects to a process that is starting (the socket may not be there yet) or runs already. From here on one that can never
    /// run its guest again is ended.
    pub(super) async fn connect(socket: &Path, process: &Process) -> Result<Monitor, VmmError> {
        let stream = connect_when_there(socket)
            .await
            .map_err(VmmError::io("connecting to the VMM's control socket"))?;
        let (read, write): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(stream);
        let stream = QmpStreamTokio::open_split(ShortLines::new(read), write)
            .await
            .map_err(VmmError::io("greeting on the VMM's control socket"))?
            .negotiate()
            .await
            .map_err(VmmError::io("negotiating on the VMM's control socket"))?;
        let (service, mut events) = stream.into_parts();
        let (resumes, resumed) = watch::channel(0);
        let service = Arc::new(service);
        let (stops, mut stopped) = mpsc::channel(1);
        let (stopping, its_process) = (Arc::downgrade(&service), process.clone());
        // One question at a time, however often a process says that it has stopped.
        tokio::spawn(async move {
            while let Some(()) = stopped.recv().await {
                end_if_broken(stopping.clone(), its_process.clone()).await;
            }
        });
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                match event {
                    qmp::Event::RESUME { .. } => resumes.send_modify(|count| *count += 1),
                    // This task reads the answers, too: it must not wait for one.
                    qmp::Event::STOP { .. } => {
                        let _one_waits_already = stops.try_send(());
                    }
                    _ => {}
                }
            }
        });
        Ok(Monitor { service, resumed })
    }

    /// Connects to a process that another daemon started, which may not have lived to see its guest stop for good.
    pub(super) async fn adopt(socket: &Path, process: &Process) -> Result<Monitor, VmmError> {
        let monitor = Monitor::connect(socket, process).await?;
        end_if_broken(Arc::downgrade(&monitor.service), process.clone()).await;
        Ok(monitor)
    }

    /// Carries out one command. A caller that gives up does not break it off: the library expects every answer to be
    /// taken, so a task of its own waits for it.
    pub(super) async fn execute<C>(&self, command: C) -> Result<C::Ok, VmmError>
    where
        C: qmp::QmpCommand + Send + 'static,
        C::Ok: Send,
    {
        let refused = |cause: String| VmmError::Refused {
            command: C::NAME,
            cause,
        };
        let service = self.service.clone();
        let answered = tokio::spawn(async move { service.execute(command).await }).await;
        answered
            .map_err(|error| refused(error.to_string()))?
            .map_err(|error| refused(error.to_string()))
    }

    /// A mark to wait from; see [`Monitor::resumed_since`].
    pub(super) fn resume_mark(&self) -> u64 {
        *self.resumed.borrow()
    }

    /// Waits until the guest was seen to run after the mark. `false` when the connection ended instead.
    pub(super) async fn resumed_since(&self, mark: u64) -> bool {
        self.resumed.clone().wait_for(|count| *count > mark).await.is_ok()
    }
}

/// Where the kernel cannot run the guest's code, or memory that it touches cannot be read or written, QEMU with KVM stops the
/// guest for good and waits to be looked at. Nobody will: what it says is in its log.
async fn end_if_broken(service: Weak<Service>, process: Process) {
    let Some(service) = service.upgrade() else { return };
    if let Ok(status) = service.execute(qmp::query_status {}).await
        && status.status == qmp::RunState::internal_error
    {
        tracing::warn!(
            pid = process.record().pid,
            "a guest cannot go on: its VMM is ended"
        );
        process.kill().await;
    }
}

/// Ends when a line has no end: the process may be broken, and the library takes a line of any length into memory.
struct ShortLines<R> {
    inner: R,
    /// Bytes since the last end of a line.
    length: usize,
}

impl<R> ShortLines<R> {
    fn new(inner: R) -> ShortLines<R> {
        ShortLines { inner, length: 0 }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ShortLines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        self.length = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => read.len() - end - 1,
            None => self.length + read.len(),
        };
        if self.length > LONGEST_LINE {
            // Who fails has read nothing.
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line has no end",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

/// `block_set_io_throttle` without its deprecated member: the limits of a disk, by what its device asks for blocks. They are
/// of what is read and written, not of what is given back (discarded), which costs nothing and comes in gigabytes.
#[derive(Debug, Serialize)]
pub(super) struct Throttle {
    id: String,
    bps: u64,
    bps_rd: u64,
    bps_wr: u64,
    bps_max: u64,
    iops: u64,
    iops_rd: u64,
    iops_wr: u64,
    iops_max: u64,
}

impl Throttle {
    /// Buckets hold a second's worth.
    pub(super) fn new(backend: String, limits: DiskLimits) -> Throttle {
        let bytes = limits.bytes_per_second.min(LARGEST_LIMIT);
        let operations = limits.operations_per_second.min(LARGEST_LIMIT);
        Throttle {
            id: backend,
            bps: bytes,
            bps_rd: 0,
            bps_wr: 0,
            bps_max: bytes,
            iops: operations,
            iops_rd: 0,
            iops_wr: 0,
            iops_max: operations,
        }
    }
}

impl qapi::Command for Throttle {
    const NAME: &'static str = "block_set_io_throttle";
    const ALLOW_OOB: bool = false;
    type Ok = qapi::Empty;
}

impl qmp::QmpCommand for Throttle {}

/// `blockdev-add` of a file; the typed one of the library knows every driver, this one ours.
#[derive(Debug, Serialize)]
pub(super) struct AddFileNode {
    driver: &'static str,
    #[serde(rename = "node-name")]
    node_name: String,
    filename: String,
    #[serde(rename = "read-only")]
    read_only: bool,
    locking: &'static str,
    cache: Cache,
    discard: &'static str,
}

#[derive(Debug, Serialize)]
struct Cache {
    #[serde(rename = "no-flush")]
    no_flush: bool,
}

impl AddFileNode {
    pub(super) fn new(node_name: String, path: &Path, disk: &Disk) -> AddFileNode {
        let filename = path.display().to_string();
        AddFileNode {
            driver: "file",
            node_name,
            filename,
            read_only: disk.read_only,
            locking: "off",
            cache: Cache {
                no_flush: !disk.flushes,
            },
            discard: "unmap",
        }
    }
}

impl qapi::Command for AddFileNode {
    const NAME: &'static str = "blockdev-add";
    const ALLOW_OOB: bool = false;
    type Ok = qapi::Empty;
}

impl qmp::QmpCommand for AddFileNode {}

/// `blockdev-reopen` of a raw node on another file node.
#[derive(Debug, Serialize)]
pub(super) struct ReopenRawNode {
    options: [RawNode; 1],
}

#[derive(Debug, Serialize)]
struct RawNode {
    driver: &'static str,
    #[serde(rename = "node-name")]
    node_name: String,
    file: String,
    #[serde(rename = "read-only")]
    read_only: bool,
    discard: &'static str,
}

impl ReopenRawNode {
    pub(super) fn new(node_name: String, file: String, read_only: bool) -> ReopenRawNode {
        ReopenRawNode {
            options: [RawNode {
                driver: "raw",
                node_name,
                file,
                read_only,
                discard: "unmap",
            }],
        }
    }
}

impl qapi::Command for ReopenRawNode {
    const NAME: &'static str = "blockdev-reopen";
    const ALLOW_OOB: bool = false;
    type Ok = qapi::Empty;
}

impl qmp::QmpCommand for ReopenRawNode {}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use serde_json::json;
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::UnixListener,
    };

    use super::*;
    use crate::process::ProcessRecord;

    /// What QEMU says: a guest that runs at first, then stands still in this state.
    async fn stop_in(state: &'static str, listener: UnixListener) -> io::Result<()> {
        let (read, mut write) = listener.accept().await?.0.into_split();
        let version = json!({ "qemu": { "micro": 0, "minor": 0, "major": 10 }, "package": "" });
        let greeting = json!({ "QMP": { "version": version, "capabilities": ["oob"] } });
        write.write_all(format!("{greeting}\n").as_bytes()).await?;
        let mut lines = BufReader::new(read).lines();
        let (mut runs, now) = (true, json!({ "seconds": 0, "microseconds": 0 }));
        while let Some(line) = lines.next_line().await? {
            let asked: serde_json::Value = serde_json::from_str(&line)?;
            let is_query = asked["execute"] == "query-status" || asked["exec-oob"] == "query-status";
            let answer = match is_query {
                true => json!({ "running": runs, "status": if runs { "running" } else { state } }),
                false => json!({}),
            };
            let mut said = format!("{}\n", json!({ "return": answer, "id": asked["id"] }));
            if is_query && std::mem::take(&mut runs) {
                said += &format!("{}\n", json!({ "event": "STOP", "timestamp": now }));
            }
            write.write_all(said.as_bytes()).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_process_whose_guest_stands_still_for_good_is_ended_and_no_other() {
        for (state, goes_on) in [("paused", true), ("internal-error", false)] {
            let directory = tempfile::tempdir().expect("temp dir");
            let socket = directory.path().join("qmp.sock");
            let listener = UnixListener::bind(&socket).expect("bound");
            let said = tokio::spawn(stop_in(state, listener));
            let mut child = Command::new("sleep").arg("60").spawn().expect("started");
            let record = ProcessRecord::of(child.id() as i32).expect("alive");
            let process = Process::watch(record).expect("watched").expect("alive");
            let monitor = Monitor::connect(&socket, &process).await.expect("connected");
            // The guest stops after the first question.
            monitor.execute(qmp::query_status {}).await.expect("answered");
            let ended =
                tokio::time::timeout(Duration::from_secs(if goes_on { 1 } else { 60 }), process.ended());
            assert_eq!(ended.await.is_err(), goes_on, "{state}");
            let status = monitor.execute(qmp::query_status {}).await.expect("answered");
            assert!(!status.running, "{state}");
            let _may_have_ended = child.kill();
            let _may_be_reaped = child.wait();
            said.abort();
        }
    }

    #[test]
    fn an_attached_disk_flushes_as_it_is_to() {
        for flushes in [true, false] {
            let disk = Disk {
                path: None,
                bytes: 1 << 30,
                read_only: false,
                flushes,
            };
            let node = AddFileNode::new("attached1".into(), Path::new("/disks/1"), &disk);
            let sent = serde_json::to_value(node).expect("JSON");
            assert_eq!(sent["cache"], serde_json::json!({ "no-flush": !flushes }));
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_ends_the_connection() {
        let line = [vec![b'x'; LONGEST_LINE - 1], vec![b'\n']].concat();
        let lines = [line.as_slice(), &line, &line].concat();
        let mut read = Vec::new();
        ShortLines::new(lines.as_slice())
            .read_to_end(&mut read)
            .await
            .expect("short lines");
        assert_eq!(read.len(), lines.len());
        let error = ShortLines::new(tokio::io::repeat(b'x'))
            .read_to_end(&mut read)
            .await
            .expect_err("no end");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_limited_disk_has_a_burst_of_a_second() {
        let limits = |bytes_per_second, operations_per_second| DiskLimits {
            bytes_per_second,
            operations_per_second,
        };
        let sent = |limits| {
            serde_json::to_value(Throttle::new("drive1/virtio-backend".into(), limits)).expect("JSON")
        };
        assert_eq!(
            sent(limits(5_000_000, 300)),
            serde_json::json!({
                "id": "drive1/virtio-backend",
                "bps": 5_000_000, "bps_rd": 0, "bps_wr": 0, "bps_max": 5_000_000,
                "iops": 300, "iops_rd": 0, "iops_wr": 0, "iops_max": 300,
            })
        );
        assert_eq!(sent(limits(u64::MAX, 0))["bps"], LARGEST_LIMIT);
    }
}
