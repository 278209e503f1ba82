//! `hearth up` and `down` with a daemon that is a script.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, dead_code)]

mod fake;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use fake::{Fake, err, out};
use serde_json::Value;

struct Machine {
    fake: Fake,
    program: PathBuf,
}

impl Machine {
    /// `hearth`, and next to it a `hearthd` that is `script`.
    fn new(script: &str) -> Self {
        let fake = Fake::start(|_| (200, "{}".to_owned()));
        let bin = fake.data.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let program = bin.join("hearth");
        fs::hard_link(env!("CARGO_BIN_EXE_hearth"), &program).unwrap();
        let daemon = bin.join("hearthd");
        // Written by another process: what this one has open for writing, a child that another test is
        // just starting may hold open too, and then it cannot be executed.
        let written = Command::new("/bin/sh")
            .args([
                "-c",
                "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 755 \"$2\"",
                "sh",
                script,
            ])
            .arg(&daemon)
            .status();
        assert!(written.unwrap().success());
        Self { fake, program }
    }

    fn hearth(&self, line: &[&str]) -> Output {
        fake::hearth(&self.program, self.fake.data.path(), line)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.hearth(&["down"]);
    }
}

const DAEMON: &str = r#"
echo $$ > "$HEARTH_DATA/hearthd.pid"
trap 'exit 0' TERM
echo "preparing"
while :; do sleep 0.05; done
"#;

#[test]
fn up_starts_the_daemon_once_and_down_ends_it() {
    let machine = Machine::new(DAEMON);
    let first = machine.hearth(&["up", "--json"]);
    assert!(first.status.success(), "{}", err(&first));
    let first: Value = serde_json::from_str(&out(&first)).unwrap();
    assert_eq!(first["alreadyRunning"], false);
    // The script's first act may come after the fake service has answered for it.
    let pid = machine.fake.data.path().join("hearthd.pid");
    while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
        std::thread::yield_now();
    }
    let second: Value = serde_json::from_str(&out(&machine.hearth(&["up", "--json"]))).unwrap();
    assert_eq!(
        (second["alreadyRunning"].as_bool(), &second["pid"]),
        (Some(true), &first["pid"])
    );
    let stopped = machine.hearth(&["down"]);
    assert_eq!(out(&stopped), "hearthd stopped\n", "{}", err(&stopped));
    assert_eq!(out(&machine.hearth(&["down"])), "hearthd is not running\n");
    assert_eq!(
        fs::read_to_string(machine.fake.data.path().join("hearthd.log")).unwrap(),
        "preparing\n"
    );
}

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let machine = Machine::new("echo 'opening state'; echo 'no space left' >&2; exit 3");
    fs::remove_file(machine.fake.data.path().join("client.json")).unwrap();
    let output = machine.hearth(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).starts_with("hearth: hearthd did not start: no space left. See "),
        "{}",
        err(&output)
    );
}

#[test]
fn doctor_passes_output_and_exit_code_through() {
    let machine = Machine::new(r#"echo "$@"; exit 4"#);
    let output = machine.hearth(&["doctor", "--json"]);
    assert_eq!(
        (out(&output), output.status.code()),
        ("doctor --json\n".to_owned(), Some(4))
    );
}

#[test]
fn env_is_read_back_by_a_shell() {
    let machine = Machine::new("exit 1");
    let exports = out(&machine.hearth(&["env"]));
    let script = format!("{exports}\nprintf '%s|%s' \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_ENDPOINT_URL\"");
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(script)
        .output()
        .unwrap();
    assert_eq!(
        out(&output),
        format!("it's secret|https://{}", machine.fake.address)
    );
}
