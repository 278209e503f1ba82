//! `hearth-agent`: PID 1 in the guest, and (re-executed as `container-init FD`) the first steps of a container process.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(hearth_agent::container::INIT_ARGUMENT), Some(control)) => {
            hearth_agent::container::init::main(&control)
        }
        _ if std::process::id() == 1 => hearth_agent::boot::main(),
        _ => {
            eprintln!("hearth-agent is the init process of a guest and does nothing elsewhere");
            ExitCode::FAILURE
        }
    }
}
