//! A container to test with: a busybox root in a mount namespace of the test's thread, and a cgroup.
// Each test file uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hearth_agent::application::{self, Started};
use hearth_agent::container::launch::Launcher;
use hearth_agent::container::{NewContainer, Place, Process, Work};
use hearth_agent::exec;
use hearth_agent::files;
use hearth_agent::output::OutputLog;
use hearth_agent::reaper::Reaper;
use hearth_agent_protocol::{Application, Exec, ExitStatus, FileAction, FileRequest, Output};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal};

const CGROUP2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// One for the whole process, since it reaps all its children.
pub(crate) fn launcher() -> &'static Launcher {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    LAUNCHER.get_or_init(|| {
        nix::sys::prctl::set_child_subreaper(true).expect("orphans come here, as they come to PID 1");
        // What nohup or a shell's background ignores, children ignore, too; nobody ignores anything for PID 1.
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: the default action runs no code of this process.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.expect("a signal's default");
        }
        Launcher {
            reaper: Reaper::start().expect("reaper"),
            program: env!("CARGO_BIN_EXE_hearth-agent").into(),
        }
    })
}

pub(crate) struct Container {
    root: tempfile::TempDir,
    cgroups: PathBuf,
}

impl Container {
    /// The root is mounted in the calling thread's own mount namespace, and goes with it.
    pub(crate) fn new() -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup2 = CGROUP2
            .iter()
            .find(|path| Path::new(path).join("cgroup.procs").exists())
            .expect("cgroup2 is mounted");
        let name = format!(
            "hearth-agent-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let cgroups = Path::new(cgroup2).join(name);
        fs::create_dir_all(cgroups.join("app")).expect("needs root");
        let root = tempfile::Builder::new()
            .prefix("hearth-agent-test")
            .tempdir()
            .expect("directory");
        unshare(CloneFlags::CLONE_NEWNS).expect("needs root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        mount(Some(root.path()), root.path(), none, MsFlags::MS_BIND, none).expect("a mount point");
        let container = Container { root, cgroups };
        container.fill();
        container
    }

    fn fill(&self) {
        for directory in ["bin", "etc", "tmp", "proc"] {
            fs::create_dir(self.path(directory)).expect("creates");
        }
        // Mounted, not copied: what this process has open for writing, a child that another test is just
        // starting may hold open too, and then it cannot be executed.
        let busybox = self.path("bin/busybox");
        fs::File::create(&busybox).expect("creates");
        let none = None::<&str>;
        mount(Some("/bin/busybox"), &busybox, none, MsFlags::MS_BIND, none)
            .expect("busybox-static is installed");
        for applet in [
            "sh", "cat", "id", "grep", "hostname", "wc", "ls", "head", "df", "tail", "awk", "mount", "sleep",
            "ps", "true", "test", "tty", "stty",
        ] {
            symlink("busybox", self.path("bin").join(applet)).expect("links");
        }
        self.write(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        );
        self.write("/etc/group", "root:x:0:\napp:x:1001:\naudio:x:29:app\n");
    }

    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        self.root.path().join(inside.strip_prefix("/").unwrap_or(inside))
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).expect("writes");
    }

    pub(crate) fn settings(&self, argv: &[&str]) -> Application {
        Application {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..Application::default()
        }
    }

    pub(crate) fn start(&self, settings: Application) -> anyhow::Result<Started> {
        let process = Process {
            work: Work::Program,
            argv: settings.argv.clone(),
            env: settings.env.clone(),
            working_directory: settings.working_directory.clone(),
            user: settings.user.clone(),
            all_capabilities: settings.all_capabilities,
            cgroup: self.cgroups.join("app"),
            place: Place::New(NewContainer {
                root: self.root.path().into(),
                binds: Vec::new(),
                name_server: [192, 0, 2, 1],
                extra_certificates: settings.extra_certificates.clone(),
            }),
        };
        application::run(launcher(), settings, &process)
    }

    /// Starts an application and follows it to its end.
    pub(crate) fn run(&self, settings: Application) -> (ExitStatus, String, String) {
        let started = self.start(settings).expect("makes a process");
        started.check().expect("starts");
        follow(&started.output)
    }

    /// The host's end of a connection on which the command is served.
    pub(crate) fn exec(&self, application: &Started, request: Exec) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let host = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        host.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("sets");
        let mut agents = listener.accept().expect("accepts").0;
        let size = request.terminal;
        let process = Process {
            cgroup: self.cgroups.join("app"),
            ..exec::process(application, request)
        };
        thread::spawn(move || exec::serve(&mut agents, launcher(), &process, size));
        host
    }

    /// The host's end of a connection on which the work on files is done.
    pub(crate) fn files(&self, application: &Started, path: &str, action: FileAction) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let host = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        host.set_read_timeout(Some(Duration::from_secs(60)))
            .expect("sets");
        let agents = listener.accept().expect("accepts").0;
        let request = FileRequest {
            path: path.into(),
            action,
        };
        let process = Process {
            cgroup: self.cgroups.join("app"),
            ..files::process(application, request)
        };
        thread::spawn(move || files::serve_as(&agents, launcher(), &process).expect("serves"));
        host
    }

    /// Kills the application and waits for its end.
    pub(crate) fn end(&self, application: &Started) {
        assert!(launcher().reaper.signal(application.pid, libc::SIGKILL));
        assert_eq!(follow(&application.output).0, ExitStatus::Signal(libc::SIGKILL));
    }

    pub(crate) fn cgroups(&self) -> &Path {
        &self.cgroups
    }

    pub(crate) fn cgroup_name(&self) -> &str {
        self.cgroups
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
    }

    pub(crate) fn processes(&self) -> usize {
        fs::read_to_string(self.cgroups.join("app/cgroup.procs"))
            .expect("lists")
            .lines()
            .count()
    }

    pub(crate) fn await_processes(&self, count: usize) {
        while self.processes() != count {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroups.join("cgroup.kill"), "1");
        for directory in [self.cgroups.join("app"), self.cgroups.clone()] {
            for _ in 0..1000 {
                if fs::remove_dir(&directory).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = nix::mount::umount2(self.root.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// All output from the start to the exit: status, stdout, stderr.
pub(crate) fn follow(output: &OutputLog) -> (ExitStatus, String, String) {
    let mut reader = output.read_from(0);
    kinds(|| reader.next(|| false).expect("nobody stops it"))
}

pub(crate) fn kinds(mut next: impl FnMut() -> Output) -> (ExitStatus, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    loop {
        match next() {
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
            Output::Exited(status) => return (status, text(stdout), text(stderr)),
        }
    }
}
