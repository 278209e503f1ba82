//! What an image needs besides its files: from `hearth.toml` in the directory, then from options.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use aws_sdk_lambdamicrovms::types::{HookState, Hooks, MicrovmHooks, MicrovmImageHooks};
use clap::Args;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The port of the hooks when hooks are named without one.
const DEFAULT_HOOKS_PORT: i32 = 9000;

/// Settings of a project. Members that are left out are left to the service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Project {
    /// MiB.
    pub(super) memory: Option<i32>,
    /// Environment of the application.
    pub(super) env: BTreeMap<String, String>,
    /// Whether the application gets every capability.
    pub(super) all_capabilities: bool,
    /// The role of the build.
    pub(super) role: Option<String>,
    hooks: HookTable,
}

/// Each hook that is named is enabled; the number is its time limit in seconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct HookTable {
    port: Option<i32>,
    ready: Option<i32>,
    validate: Option<i32>,
    run: Option<i32>,
    resume: Option<i32>,
    suspend: Option<i32>,
    terminate: Option<i32>,
}

/// The same on the command line, where it wins.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Options {
    /// Memory in MiB: 512, 1024, 2048, 4096 or 8192; the guest gets four times as much
    #[arg(long, value_name = "MIB")]
    memory: Option<i32>,
    /// A variable of the application's environment; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The port where the application answers lifecycle hooks [default: 9000]
    #[arg(long, value_name = "PORT")]
    hooks_port: Option<i32>,
    /// A hook that the application answers, and its time limit; may be repeated
    #[arg(long = "hook", value_name = "NAME=SECONDS")]
    hooks: Vec<String>,
    /// The role of the build [default: hearth-build of this account]
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// Give the application every capability: mounts, FUSE, nested containers
    #[arg(long)]
    all_capabilities: bool,
}

impl Project {
    /// Reads `hearth.toml` in `dir`, if there is one, and applies the options.
    pub(super) fn load(dir: &Path, options: &Options) -> Result<Self> {
        let path = dir.join("hearth.toml");
        let mut project = match fs::read_to_string(&path) {
            Ok(text) => toml::from_str::<Self>(&text).map_err(|error| {
                let line = error
                    .span()
                    .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
                let cause = format!("{}, line {line}: {}", path.display(), error.message());
                Error::failed(cause, "Correct the file")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(Error::file(path)(error)),
        };
        project.apply(options)?;
        Ok(project)
    }

    fn apply(&mut self, options: &Options) -> Result<()> {
        self.memory = options.memory.or(self.memory);
        self.role = options.role.clone().or(self.role.take());
        self.all_capabilities |= options.all_capabilities;
        self.hooks.port = options.hooks_port.or(self.hooks.port);
        for variable in &options.env {
            let (name, value) = variable
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| {
                    Error::usage(format!("--env {variable} has no value"), "Write --env NAME=VALUE")
                })?;
            self.env.insert(name.to_owned(), value.to_owned());
        }
        for hook in &options.hooks {
            let parsed = hook
                .split_once('=')
                .and_then(|(name, seconds)| Some((name, seconds.parse().ok()?)));
            let slot = parsed.and_then(|(name, seconds)| Some((self.hooks.slot(name)?, seconds)));
            let (slot, seconds) = slot.ok_or_else(|| {
                let cure =
                    "Write --hook NAME=SECONDS with ready, validate, run, resume, suspend or terminate";
                Error::usage(format!("--hook {hook} is not a hook"), cure)
            })?;
            *slot = Some(seconds);
        }
        Ok(())
    }

    /// The environment as the API takes it; None when there is none.
    pub(super) fn environment(&self) -> Option<HashMap<String, String>> {
        (!self.env.is_empty()).then(|| self.env.clone().into_iter().collect())
    }

    /// The hooks as the API takes them; None when none is enabled.
    pub(super) fn hooks(&self) -> Option<Hooks> {
        let table = &self.hooks;
        let image = [table.ready, table.validate];
        let microvm = [table.run, table.resume, table.suspend, table.terminate];
        let port = table.port.unwrap_or(DEFAULT_HOOKS_PORT);
        let state = |limit: Option<i32>| limit.map(|_| HookState::Enabled);
        let any = |limits: &[Option<i32>]| limits.iter().any(Option::is_some);
        if !any(&image) && !any(&microvm) {
            return None;
        }
        let image_hooks = MicrovmImageHooks::builder()
            .set_ready(state(table.ready))
            .set_ready_timeout_in_seconds(table.ready)
            .set_validate(state(table.validate))
            .set_validate_timeout_in_seconds(table.validate);
        let microvm_hooks = any(&microvm).then(|| {
            MicrovmHooks::builder()
                .set_run(state(table.run))
                .set_run_timeout_in_seconds(table.run)
                .set_resume(state(table.resume))
                .set_resume_timeout_in_seconds(table.resume)
                .set_suspend(state(table.suspend))
                .set_suspend_timeout_in_seconds(table.suspend)
                .set_terminate(state(table.terminate))
                .set_terminate_timeout_in_seconds(table.terminate)
                .build()
        });
        let hooks = Hooks::builder()
            .port(port)
            .microvm_image_hooks(image_hooks.build());
        Some(hooks.set_microvm_hooks(microvm_hooks).build())
    }
}

impl HookTable {
    fn slot(&mut self, name: &str) -> Option<&mut Option<i32>> {
        Some(match name {
            "ready" => &mut self.ready,
            "validate" => &mut self.validate,
            "run" => &mut self.run,
            "resume" => &mut self.resume,
            "suspend" => &mut self.suspend,
            "terminate" => &mut self.terminate,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, options: Options) -> Result<Project> {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("hearth.toml"), text).expect("written");
        Project::load(dir.path(), &options)
    }

    #[test]
    fn options_win_over_the_file() {
        let options = Options {
            memory: Some(1024),
            env: vec!["A=2=3".into()],
            hooks: vec!["ready=90".into()],
            ..Options::default()
        };
        let text = "memory = 512\nenv = { A = '1', B = 'b' }\nhooks = { port = 9001, ready = 60, run = 5 }";
        let project = load(text, options).expect("loaded");
        assert_eq!(project.memory, Some(1024));
        assert_eq!(project.environment().expect("some")["A"], "2=3");
        let hooks = project.hooks().expect("some");
        assert_eq!(hooks.port, Some(9001));
        assert_eq!(
            hooks.microvm_image_hooks.expect("some").ready_timeout_in_seconds,
            90
        );
        let microvm = hooks.microvm_hooks.expect("some");
        assert_eq!(
            (microvm.run.as_str(), microvm.suspend.as_str()),
            ("ENABLED", "DISABLED")
        );
    }

    #[test]
    fn without_a_word_about_hooks_there_are_none() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let project = Project::load(dir.path(), &Options::default()).expect("loaded");
        assert_eq!(project, Project::default());
        assert!(project.hooks().is_none() && project.environment().is_none());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = load("memory = 512\nmemry = 1", Options::default()).expect_err("unknown");
        assert!(
            error
                .line()
                .expect("a line")
                .contains("hearth.toml, line 2: unknown field `memry`"),
            "{error}"
        );
        let options = Options {
            hooks: vec!["rdy=1".into()],
            ..Options::default()
        };
        assert_eq!(load("", options).expect_err("unknown").exit_code(), 2);
    }
}
