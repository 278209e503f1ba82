//! `hearthd`: composes the rooms and runs them. No logic of its own.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `config` | the operator's settings and their defaults |
//! | `compose` | builds every room in order and runs the listeners |
//! | `adapters` | lets one room be seen through another's trait |
//! | `admin` | the listener for metrics |
//! | `acme` | the endpoints' certificate from a public authority |
//! | `secrets` | keys made at the first start |
//! | `client` | the files that clients read: how to reach and trust this daemon |
//! | `vmm` | which VMM runs the guests |
//! | `doctor` | every precondition, with cause and cure |
#![forbid(unsafe_code)]

mod acme;
mod adapters;
mod admin;
mod client;
mod compose;
mod config;
mod doctor;
mod lock;
mod roles;
mod secrets;
mod vmm;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use config::Config;

#[derive(Debug, Parser)]
#[command(
    name = "hearthd",
    version,
    about = "The hearth daemon: MicroVMs behind the AWS Lambda MicroVMs API"
)]
struct Arguments {
    /// Directory of everything that lasts.
    #[arg(long, env = "HEARTH_DATA", default_value = "/var/lib/hearth", global = true)]
    data: PathBuf,
    /// Settings (TOML); none is needed.
    #[arg(long, env = "HEARTH_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon (what happens without a command).
    Serve,
    /// Checks every precondition and says what to do.
    Doctor {
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Runs the tiny guest that tells whether KVM is usable; for `doctor` and the start.
    #[command(hide = true)]
    ProbeKvm,
    /// Becomes a VMM in its jail; the daemon starts this for each.
    #[command(hide = true)]
    Jail {
        /// The jail, in JSON.
        spec: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::ProbeKvm) = arguments.command {
        return match hearth_vmm::kvm::run_probe() {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => {
                println!("{cause}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(Command::Jail { spec }) = &arguments.command {
        return match hearth_vmm::jail::enter(spec) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => {
                eprintln!("hearthd: the VMM cannot be jailed: {cause}");
                ExitCode::FAILURE
            }
        };
    }
    let config = match Config::load(&arguments.data, arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let outcome = match arguments.command {
        Some(Command::Doctor { json }) => return doctor::run(&config, json),
        _ => compose::run(config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line with cause and cure.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("hearthd: {}", format!("{error:#}").replace('\n', " "));
    ExitCode::FAILURE
}
