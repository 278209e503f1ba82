//! Commands on a terminal of the container. Needs root, busybox and cgroup2.

mod support;

use std::net::TcpStream;

use hearth_agent::application::Started;
use hearth_agent_protocol::{
    Exec, ExecInput, ExitStatus, Output, Reply, TerminalSize, read_frame, write_frame,
};
use support::Container;

/// What a person sees and does at a terminal.
struct Screen {
    host: TcpStream,
    /// Not looked at yet.
    text: String,
}

impl Screen {
    fn open(container: &Container, application: &Started, script: &str, user: &str) -> Screen {
        let mut host = container.exec(
            application,
            Exec {
                argv: vec!["sh".into(), "-c".into(), script.into()],
                env: Vec::new(),
                working_directory: String::new(),
                user: user.into(),
                terminal: Some(TerminalSize::default()),
            },
        );
        assert_eq!(read_frame(&mut host).expect("reply"), Some(Reply::Started));
        Screen {
            host,
            text: String::new(),
        }
    }

    /// Reads on until `end` is seen; gives what came before it.
    fn until(&mut self, end: &str) -> String {
        loop {
            if let Some((before, after)) = self.text.split_once(end) {
                let before = before.to_owned();
                self.text = after.to_owned();
                return before;
            }
            match read_frame(&mut self.host).expect("frame") {
                Some(Output::Stdout(bytes)) => self.text += &String::from_utf8_lossy(&bytes),
                other => panic!("{other:?} after {:?}", self.text),
            }
        }
    }

    fn send(&mut self, input: &ExecInput) {
        write_frame(&mut self.host, input).expect("sends");
    }

    fn say(&mut self, bytes: &[u8]) {
        self.send(&ExecInput::Stdin(bytes.to_vec()));
    }

    fn end(&mut self, code: i32) {
        assert_eq!(
            read_frame(&mut self.host).expect("frame"),
            Some(Output::Exited(ExitStatus::Code(code)))
        );
    }
}

fn application(container: &Container) -> Started {
    container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts")
}

#[test]
fn a_terminal_is_the_containers_own_and_the_users_and_has_the_size_it_was_told() {
    let container = Container::new();
    let application = application(&container);
    let script = "tty; stty size; ls -ln $(tty); read -r x; stty size; exit 5";
    let mut screen = Screen::open(&container, &application, script, "app");
    screen.until("/dev/pts/0\r\n");
    let listed = screen.until("136,");
    assert!(listed.contains("1000"), "{listed}");
    screen.send(&ExecInput::Resize(TerminalSize {
        columns: 120,
        rows: 40,
    }));
    screen.say(b"go\n");
    screen.until("40 120\r\n");
    screen.end(5);
    container.end(&application);
}

#[test]
fn the_terminals_keys_reach_the_foreground_and_its_end_of_file_ends_input() {
    let container = Container::new();
    let application = application(&container);
    // A key that interrupts also throws away what is being written: the word comes a moment later.
    let script = "trap 'sleep 1; echo interrupted' INT; cat; cat; echo done";
    let mut screen = Screen::open(&container, &application, script, "");
    screen.say(b"one\n");
    screen.until("one\r\none\r\n");
    screen.say(b"\x03");
    screen.until("interrupted\r\n");
    screen.say(b"two\n");
    screen.until("two\r\ntwo\r\n");
    screen.send(&ExecInput::StdinEnd);
    screen.until("done\r\n");
    screen.end(0);
    container.end(&application);
}

#[test]
fn a_shell_whose_host_goes_gets_a_hang_up_and_leaves_nothing() {
    let container = Container::new();
    let application = application(&container);
    let script = "trap 'echo hung up > /tmp/word; exit' HUP; sleep 1000 & while true; do sleep 1; done";
    let screen = Screen::open(&container, &application, script, "");
    container.await_processes(4);
    drop(screen);
    container.await_processes(1);
    let word = std::fs::read_to_string(container.path("/tmp/word")).expect("the trap ran");
    assert_eq!(word, "hung up\n");
    container.end(&application);
}

#[test]
fn jobs_of_a_shell_that_is_killed_are_hung_up_on() {
    let container = Container::new();
    let application = application(&container);
    // With job control each job has a group of its own. What follows outlives the loss of the terminal.
    let script = "trap : HUP; set -m; sleep 1000 & set +m; while true; do sleep 1; done";
    let screen = Screen::open(&container, &application, script, "");
    container.await_processes(4);
    drop(screen);
    container.await_processes(1);
    container.end(&application);
}

#[test]
fn a_command_that_does_not_mind_a_hang_up_is_killed() {
    let container = Container::new();
    let application = application(&container);
    let script = "trap '' HUP; sleep 1000; sleep 1000";
    let screen = Screen::open(&container, &application, script, "");
    container.await_processes(3);
    drop(screen);
    container.await_processes(1);
    container.end(&application);
}
