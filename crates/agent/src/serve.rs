//! Answering the host: one connection, one request, one thread.
use std::fs::{self, File};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hearth_agent_protocol::{
    Application, Freeze, GATEWAY_ADDRESS, PROTOCOL_VERSION, Reply, Request, Thaw, read_frame, write_frame,
};

use crate::application::{self, Started};
use crate::container::launch::Launcher;
use crate::streams::Streams;
use crate::{
    clock, connections, console, disks, entropy, exec, files, forward, freezer, held, hook, listeners,
    loopback, modules,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STACK_BYTES: usize = 256 * 1024;

/// All the agent knows.
pub struct Agent {
    launcher: Launcher,
    application: OnceLock<Started>,
    /// Held while the application is being started; true once it was tried.
    start_tried: Mutex<bool>,
    streams: Streams,
}

impl Agent {
    /// An agent whose application has not been started.
    pub fn new(launcher: Launcher) -> Agent {
        Agent {
            launcher,
            application: OnceLock::new(),
            start_tried: Mutex::new(false),
            streams: Streams::default(),
        }
    }

    /// Serves the host forever: whoever has the gateway's address on the link.
    pub fn serve(&'static self, listener: &TcpListener) -> ! {
        loop {
            match listener.accept() {
                Ok((host, peer)) if peer.ip() == IpAddr::from(GATEWAY_ADDRESS) => {
                    // Without a thread to spare the connection is dropped, which tells the host to try again.
                    let _ = thread::Builder::new()
                        .stack_size(STACK_BYTES)
                        .spawn(move || self.converse(host));
                }
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Reads the request of a connection and answers it.
    pub fn converse(&self, mut host: TcpStream) {
        let reply = match read_frame(&mut host) {
            Ok(Some(request)) => self.answer(&mut host, request),
            Ok(None) => return,
            Err(error) => Err(error.into()),
        };
        let reply = match reply {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(error) => Reply::Failed(format!("{error:#}").replace('\n', " ")),
        };
        // A host that does not listen any more misses nothing.
        let _ = write_frame(&mut host, &reply);
    }

    /// The reply; `None` when the request has been answered in full on the connection itself.
    fn answer(&self, host: &mut TcpStream, request: Request) -> anyhow::Result<Option<Reply>> {
        match request {
            Request::Hello => return Ok(Some(hello()?)),
            Request::Start(settings) => self.start(settings)?,
            Request::Freeze(request) => {
                freeze(&request)?;
                if let (true, Some(application)) = (request.for_image, self.application.get()) {
                    application.output.begin_part();
                }
            }
            Request::Thaw(request) => self.thaw(&request)?,
            Request::Hook(call) => return Ok(Some(Reply::Hook(hook::call(&call)))),
            Request::AwaitListener { timeout_ms } => {
                return Ok(Some(Reply::Listening(listeners::wait(Duration::from_millis(
                    timeout_ms,
                )))));
            }
            Request::Forward { port } => {
                let application = match loopback::connect(port, CONNECT_TIMEOUT) {
                    Ok(application) => application,
                    Err(error) => return Ok(Some(Reply::Refused(error.to_string()))),
                };
                let _open = self.streams.register(host)?;
                write_frame(host, &Reply::Connected)?;
                // How a stream ends is between the two that use it.
                let _ = forward::splice(host, &application);
                return Ok(None);
            }
            Request::Output { from } => {
                let _open = self.streams.register(host)?;
                follow_output(host, self.started()?, from);
                return Ok(None);
            }
            Request::Exec(request) => {
                if request.argv.is_empty() {
                    return Ok(Some(Reply::Refused("the command has no program".into())));
                }
                let size = request.terminal;
                let process = exec::process(self.started()?, request);
                let _open = self.streams.register(host)?;
                // Its errors mean that the host has gone.
                let _ = exec::serve(host, &self.launcher, &process, size);
                return Ok(None);
            }
            Request::Files(request) => {
                let application = self.started()?;
                let _open = self.streams.register(host)?;
                files::serve(host, &self.launcher, application, request)?;
                return Ok(None);
            }
        }
        Ok(Some(Reply::Done))
    }

    fn started(&self) -> anyhow::Result<&Started> {
        self.application
            .get()
            .ok_or_else(|| anyhow!("no application has been started"))
    }

    /// The application must not run before the clock is right, its random numbers its own, and dead connections dead.
    fn thaw(&self, request: &Thaw) -> anyhow::Result<()> {
        clock::set(request.wall_clock_ns)?;
        entropy::add(request.entropy)?;
        if request.close_connections {
            close_connections();
            self.streams.close();
        }
        freezer::thaw(Path::new(freezer::CGROUPS))
    }

    fn start(&self, settings: Application) -> anyhow::Result<()> {
        let mut tried = held(&self.start_tried);
        if std::mem::replace(&mut *tried, true) {
            bail!("the application has been started before");
        }
        clock::set(settings.wall_clock_ns)?;
        let directory = Path::new(modules::DIRECTORY);
        if settings.all_capabilities {
            modules::load(directory, modules::EXTRA);
        }
        modules::discard(directory);
        disks::mount_root()?;
        let started = application::start(&self.launcher, settings)?;
        self.application.get_or_init(|| started).check()
    }
}

fn hello() -> anyhow::Result<Reply> {
    let uname = nix::sys::utsname::uname().context("cannot name the kernel")?;
    Ok(Reply::Hello {
        protocol: PROTOCOL_VERSION,
        kernel: uname.release().to_string_lossy().into_owned(),
    })
}

fn freeze(request: &Freeze) -> anyhow::Result<()> {
    if request.for_image {
        // Everything that is mounted, while file systems served by the application (FUSE) still answer.
        nix::unistd::sync();
    }
    freezer::freeze(Path::new(freezer::CGROUPS))?;
    let scratch = File::open(disks::SCRATCH).context("cannot open the scratch disk")?;
    match nix::unistd::syncfs(&scratch) {
        // What the disk did not take (the host's may be full) lies in memory, which a suspend keeps.
        Err(error) if !request.for_image => console(format_args!("cannot sync the scratch disk: {error}")),
        synced => synced.context("cannot sync the scratch disk")?,
    }
    if request.for_image {
        close_connections();
        // What is free is zero (init_on_free), and what is zero costs nothing in the image.
        for (file, value) in [("drop_caches", "3"), ("compact_memory", "1")] {
            if let Err(error) = fs::write(Path::new("/proc/sys/vm").join(file), value) {
                console(format_args!("cannot write {file}: {error}"));
            }
        }
    }
    Ok(())
}

/// A kernel without the means leaves the connections to their own time-outs.
fn close_connections() {
    if let Err(error) = connections::close_outside() {
        console(format_args!("cannot close connections: {error}"));
    }
}

/// Sends frames until the application or this part of its output has ended, or the host has gone.
fn follow_output(host: &mut TcpStream, application: &Started, position: u64) {
    let mut output = application.output.read_from(position);
    let part = output.part();
    let gone = AtomicBool::new(false);
    let Ok(mut watched) = host.try_clone() else { return };
    thread::scope(|scope| {
        // The host says nothing on this connection but that it ends.
        let watch = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                while std::io::Read::read(&mut watched, &mut [0; 64]).is_ok_and(|count| count > 0) {}
                gone.store(true, Ordering::Relaxed);
                part.wake();
            });
        if watch.is_err() {
            return;
        }
        while let Some(frame) = output.next(|| gone.load(Ordering::Relaxed)) {
            let last = matches!(frame, hearth_agent_protocol::Output::Exited(_));
            if write_frame(host, &frame).is_err() || last {
                break;
            }
        }
        // Ends the watch, too; what was written is still delivered.
        let _ = host.shutdown(Shutdown::Both);
    });
}
