//! `hearth`: the command line. It talks HTTP to the service, like any other AWS client.
#![forbid(unsafe_code)]

mod admin;
mod audit;
mod base;
mod daemon;
mod endpoint;
mod error;
mod http;
mod image;
mod keys;
mod logs;
mod output;
mod roles;
mod s3;
mod service;
mod settings;
mod usage;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use crate::output::Out;
use crate::service::Service;
use crate::settings::Settings;

/// MicroVMs from Dockerfiles, on your own machine.
#[derive(Parser)]
#[command(name = "hearth", version, max_term_width = 100)]
struct Cli {
    /// The daemon's data directory [default: $HEARTH_DATA or /var/lib/hearth]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON: one document, or one per line where the output is a stream
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the daemon and wait until it answers
    Up(daemon::up::Up),
    /// Stop the daemon; MicroVMs keep running unless --all is given
    Down(daemon::down::Down),
    /// Check what this machine offers and what is missing
    Doctor,
    /// Print the variables that point AWS tools at this daemon: eval "$(hearth env)"
    Env(daemon::env::Env),
    /// Build, list and remove images
    #[command(subcommand)]
    Image(image::Command),
    /// Launch a MicroVM and wait until it is ready
    Run(vm::run::Run),
    /// List MicroVMs
    Ps(vm::ps::Ps),
    /// Show a MicroVM, and why it is not idle
    Describe(vm::describe::Describe),
    /// Send a request to a MicroVM's endpoint
    Curl(vm::curl::Curl),
    /// Open a shell in a MicroVM
    Shell(vm::shell::Shell),
    /// Run a command in a MicroVM
    Exec(vm::exec::Exec),
    /// Copy files between this machine and a MicroVM
    Cp(vm::cp::Cp),
    /// Bring ports of a MicroVM to this machine
    Forward(vm::forward::Forward),
    /// Suspend MicroVMs
    Suspend(vm::change::Ids),
    /// Resume MicroVMs
    Resume(vm::change::Ids),
    /// End MicroVMs for good
    Terminate(vm::change::Ids),
    /// Print what a MicroVM or the builds of an image wrote
    Logs(logs::Logs),
    /// Print a token for a MicroVM's endpoint
    Token(vm::token::Token),
    /// Import and list the container bases that FROM resolves to
    #[command(subcommand)]
    Base(base::Command),
    /// Make, list and revoke access keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make, list and remove the roles that builds and MicroVMs act as
    #[command(subcommand)]
    Roles(roles::Command),
    /// Print what MicroVMs and images have used
    Usage(usage::Usage),
    /// Print what was changed, by whom and when
    Audit(audit::Audit),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(line) = error.line() {
                eprintln!("hearth: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let out = Out { json: cli.json };
    let data = settings::data_dir(cli.data.as_deref());
    let service = async || Service::new(Settings::load(cli.data.as_deref())?).await;
    match cli.command {
        Command::Up(command) => command.run(&data, out).await,
        Command::Down(command) => command.run(cli.data.as_deref(), out).await,
        Command::Doctor => daemon::doctor::run(&data, out),
        Command::Env(command) => command.run(&data, out),
        Command::Image(command) => command.run(&service().await?, out).await,
        Command::Run(command) => command.run(&service().await?, out).await,
        Command::Ps(command) => command.run(&service().await?, out).await,
        Command::Describe(command) => command.run(&service().await?, out).await,
        Command::Curl(command) => command.run(&service().await?, out).await,
        Command::Shell(command) => command.run(&service().await?).await,
        Command::Exec(command) => command.run(&service().await?).await,
        Command::Cp(command) => command.run(&service().await?).await,
        Command::Forward(command) => command.run(service().await?, out).await,
        Command::Suspend(ids) => ids.run(vm::change::Change::Suspend, &service().await?, out).await,
        Command::Resume(ids) => ids.run(vm::change::Change::Resume, &service().await?, out).await,
        Command::Terminate(ids) => {
            ids.run(vm::change::Change::Terminate, &service().await?, out)
                .await
        }
        Command::Logs(command) => command.run(&service().await?, out).await,
        Command::Token(command) => command.run(&service().await?, out).await,
        Command::Base(command) => command.run(&service().await?, out).await,
        Command::Keys(command) => command.run(&service().await?, out).await,
        Command::Roles(command) => command.run(&service().await?, out).await,
        Command::Usage(command) => command.run(&service().await?, out).await,
        Command::Audit(command) => command.run(&service().await?, out).await,
    }
}
