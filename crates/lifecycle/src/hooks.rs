//! Lifecycle hooks: which are enabled, how long they may take, what their outcome means (spec section 13).

use std::time::Duration;

use hearth_agent_protocol::{HookCall, HookOutcome};
use hearth_guest::{Agent, GuestError};
use hearth_wire::{
    enums::HookState,
    types::{Hooks, MicrovmHooks, MicrovmImageHooks},
};

/// Default timeouts in seconds of hooks enabled without one (spec section 34, question 1).
const READY_SECONDS: u32 = 60;
const VALIDATE_SECONDS: u32 = 60;
const RUNTIME_SECONDS: u32 = 1;
/// Port of a configuration that names none.
const DEFAULT_PORT: u16 = 9000;
/// Pause between two attempts of a hook that answered 503.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A hook to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    pub name: HookName,
    pub port: u16,
    pub timeout: Duration,
}

/// The six hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookName {
    Ready,
    Validate,
    Run,
    Resume,
    Suspend,
    Terminate,
}

impl HookName {
    const fn path(self) -> &'static str {
        match self {
            HookName::Ready => "ready",
            HookName::Validate => "validate",
            HookName::Run => "run",
            HookName::Resume => "resume",
            HookName::Suspend => "suspend",
            HookName::Terminate => "terminate",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            HookName::Ready => "Ready",
            HookName::Validate => "Validate",
            HookName::Run => "Run",
            HookName::Resume => "Resume",
            HookName::Suspend => "Suspend",
            HookName::Terminate => "Terminate",
        }
    }
}

/// The hook of this name, if it is enabled.
pub(crate) fn enabled(hooks: Option<&Hooks>, name: HookName) -> Option<Hook> {
    let hooks = hooks?;
    let image = hooks.microvm_image_hooks.clone().unwrap_or_default();
    let runtime = hooks.microvm_hooks.clone().unwrap_or_default();
    let (state, seconds, default) = setting(&image, &runtime, name);
    (state == Some(HookState::Enabled)).then(|| Hook {
        name,
        port: hooks.port.unwrap_or(DEFAULT_PORT),
        timeout: Duration::from_secs(seconds.unwrap_or(default).into()),
    })
}

fn setting(
    image: &MicrovmImageHooks,
    runtime: &MicrovmHooks,
    name: HookName,
) -> (Option<HookState>, Option<u32>, u32) {
    match name {
        HookName::Ready => (image.ready, image.ready_timeout_in_seconds, READY_SECONDS),
        HookName::Validate => (
            image.validate,
            image.validate_timeout_in_seconds,
            VALIDATE_SECONDS,
        ),
        HookName::Run => (runtime.run, runtime.run_timeout_in_seconds, RUNTIME_SECONDS),
        HookName::Resume => (runtime.resume, runtime.resume_timeout_in_seconds, RUNTIME_SECONDS),
        HookName::Suspend => (
            runtime.suspend,
            runtime.suspend_timeout_in_seconds,
            RUNTIME_SECONDS,
        ),
        HookName::Terminate => (
            runtime.terminate,
            runtime.terminate_timeout_in_seconds,
            RUNTIME_SECONDS,
        ),
    }
}

/// The configuration as it is read back: effective timeouts filled in (spec section 13.1).
pub(crate) fn effective(hooks: &Hooks) -> Hooks {
    let mut hooks = hooks.clone();
    let fill = |state: Option<HookState>, seconds: &mut Option<u32>, default| {
        if state == Some(HookState::Enabled) {
            seconds.get_or_insert(default);
        }
    };
    if let Some(image) = &mut hooks.microvm_image_hooks {
        fill(image.ready, &mut image.ready_timeout_in_seconds, READY_SECONDS);
        fill(
            image.validate,
            &mut image.validate_timeout_in_seconds,
            VALIDATE_SECONDS,
        );
    }
    if let Some(runtime) = &mut hooks.microvm_hooks {
        fill(runtime.run, &mut runtime.run_timeout_in_seconds, RUNTIME_SECONDS);
        fill(
            runtime.resume,
            &mut runtime.resume_timeout_in_seconds,
            RUNTIME_SECONDS,
        );
        fill(
            runtime.suspend,
            &mut runtime.suspend_timeout_in_seconds,
            RUNTIME_SECONDS,
        );
        fill(
            runtime.terminate,
            &mut runtime.terminate_timeout_in_seconds,
            RUNTIME_SECONDS,
        );
    }
    hooks
}

/// Whether any hook that runs in a MicroVM's life is enabled; they need `ready`.
pub(crate) fn any_runtime(hooks: &Hooks) -> bool {
    [
        HookName::Run,
        HookName::Resume,
        HookName::Suspend,
        HookName::Terminate,
    ]
    .into_iter()
    .any(|name| enabled(Some(hooks), name).is_some())
}

impl Hook {
    /// Calls a hook of a MicroVM's life once. `Err` holds the reason for the MicroVM's record.
    pub(crate) async fn call(&self, agent: &Agent, body: String) -> Result<Result<(), String>, GuestError> {
        Ok(match self.attempt(agent, body, self.timeout, false).await? {
            HookOutcome::Status(200) => Ok(()),
            HookOutcome::Status(status) => Err(format!(
                "{} lifecycle hook returned HTTP status {status}. \
                 Please check your hook endpoint and application logs for more details.",
                self.name.title()
            )),
            HookOutcome::TimedOut => Err(format!(
                "{} lifecycle hook timed out after {}. \
                 Please check your hook endpoint and application logs for more details.",
                self.name.title(),
                iso_duration(self.timeout)
            )),
            HookOutcome::Failed(_) => Err(format!(
                "{} lifecycle hook could not be reached on port {}. \
                 Please check your hook endpoint and application logs for more details.",
                self.name.title(),
                self.port
            )),
        })
    }

    /// Calls a hook of an image's build until it answers something other than 503. `Err` holds the build's reason.
    pub(crate) async fn call_until_ready(&self, agent: &Agent) -> Result<Result<(), String>, GuestError> {
        let end = tokio::time::Instant::now() + self.timeout;
        let timed_out = || {
            Ok(Err(format!(
                "{} hook invocation timed out after {}",
                self.name.title(),
                iso_duration(self.timeout)
            )))
        };
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return timed_out();
            }
            let kind = match self.attempt(agent, String::new(), left, true).await? {
                HookOutcome::Status(200) => return Ok(Ok(())),
                HookOutcome::Status(503) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                HookOutcome::TimedOut => return timed_out(),
                HookOutcome::Status(500..) => "server error (HTTP 5xx)",
                HookOutcome::Status(400..) => "client error (HTTP 4xx)",
                HookOutcome::Status(_) => "unexpected (neither HTTP 200 nor 503)",
                HookOutcome::Failed(_) => "malformed (not HTTP)",
            };
            return Ok(Err(format!(
                "{} hook check failed: the application returned a {kind} response",
                self.name.title()
            )));
        }
    }

    async fn attempt(
        &self,
        agent: &Agent,
        body: String,
        timeout: Duration,
        retry_connect: bool,
    ) -> Result<HookOutcome, GuestError> {
        let timeout_ms = timeout.as_millis() as u64;
        agent
            .hook(HookCall {
                port: self.port,
                name: self.name.path().into(),
                body,
                timeout_ms,
                retry_connect,
            })
            .await
    }
}

/// Whole seconds in ISO 8601 form: `PT5M`, `PT1M30S`, `PT1H`.
pub(crate) fn iso_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, 'H'),
        (seconds / 60 % 60, 'M'),
        (seconds % 60, 'S'),
    ];
    let text: String = parts
        .iter()
        .filter(|(value, _)| *value > 0)
        .map(|(value, unit)| format!("{value}{unit}"))
        .collect();
    if text.is_empty() {
        "PT0S".into()
    } else {
        format!("PT{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_recorded() {
        let texts = [300, 600, 90, 3600, 1].map(|seconds| iso_duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["PT5M", "PT10M", "PT1M30S", "PT1H", "PT1S"]);
    }

    #[test]
    fn a_hook_without_a_state_is_disabled_and_one_without_a_timeout_gets_the_default() {
        let hooks = Hooks {
            port: None,
            microvm_image_hooks: Some(MicrovmImageHooks {
                ready: Some(HookState::Enabled),
                ..Default::default()
            }),
            microvm_hooks: Some(MicrovmHooks {
                run: Some(HookState::Enabled),
                ..Default::default()
            }),
        };
        let ready = enabled(Some(&hooks), HookName::Ready).expect("enabled");
        assert_eq!((ready.port, ready.timeout), (9000, Duration::from_secs(60)));
        assert_eq!(enabled(Some(&hooks), HookName::Suspend), None);
        assert!(any_runtime(&hooks));
        let echoed = effective(&hooks);
        assert_eq!(
            echoed.microvm_hooks.expect("kept").run_timeout_in_seconds,
            Some(1)
        );
    }
}
