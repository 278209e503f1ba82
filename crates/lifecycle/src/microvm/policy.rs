//! Which request is legal in which stage, and what it leads to. Pure.

use hearth_wire::{ApiError, texts, types::IdlePolicy};

use super::record::Stage;

/// What somebody wants of a MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// SuspendMicrovm.
    Suspend,
    /// ResumeMicrovm.
    Resume,
    /// TerminateMicrovm.
    Terminate,
    /// A request at the endpoint.
    Enter,
    /// No traffic for the idle policy's time.
    Idle,
    /// The maximum duration, or the window of a suspended MicroVM, is over.
    Expire,
    /// The application ended.
    Exit,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Begin to suspend.
    Suspend,
    /// Begin to resume.
    Resume,
    /// Let a suspend that is still being written go back to Running.
    CancelSuspend,
    /// Begin to terminate.
    Terminate,
    /// It is so already, or on its way: wait for the end of what goes on.
    Join,
    /// It is so already.
    Nothing,
    /// The gate is open.
    Open,
    /// Not now.
    Refuse(Refusal),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Something else goes on.
    Busy(Stage),
    /// It is over.
    Terminated,
    /// The gate stays shut.
    Closed,
}

impl Refusal {
    /// As the API says it (spec sections 4.5 and 34, question 10).
    pub(crate) fn error(self, microvm_id: &str) -> ApiError {
        match self {
            Refusal::Terminated => texts::microvm_terminated(microvm_id),
            Refusal::Busy(stage) => {
                ApiError::conflict(format!("The MicroVM {microvm_id} is in state {}.", stage.state()))
            }
            Refusal::Closed => ApiError::conflict(format!("The MicroVM {microvm_id} cannot be reached.")),
        }
    }
}

/// Decides. `idle_policy` is the MicroVM's own.
pub(crate) fn decide(stage: Stage, request: Request, idle_policy: Option<&IdlePolicy>) -> Decision {
    use Decision::*;
    let wakes = idle_policy.is_some_and(|policy| policy.auto_resume_enabled);
    let never_stays_suspended = idle_policy.is_some_and(|policy| policy.suspended_duration_seconds == 0);
    match (request, stage) {
        (Request::Terminate, Stage::Terminated) => Nothing,
        (Request::Suspend | Request::Resume, Stage::Terminated) => Refuse(Refusal::Terminated),
        (Request::Enter, Stage::Terminated | Stage::Terminating | Stage::Pending) => Refuse(Refusal::Closed),
        (Request::Idle | Request::Expire | Request::Exit, Stage::Terminated | Stage::Terminating) => Nothing,
        (Request::Terminate, Stage::Terminating) => Join,
        (Request::Terminate | Request::Expire, _) => Terminate,

        (Request::Suspend, Stage::Running) => Suspend,
        (Request::Suspend, Stage::Suspending) => Join,
        (Request::Suspend, Stage::Suspended) => Nothing,
        (Request::Suspend, Stage::Pending | Stage::Resuming | Stage::Terminating) => {
            Refuse(Refusal::Busy(stage))
        }

        (Request::Resume, Stage::Suspended) => Resume,
        (Request::Resume, Stage::Suspending) => CancelSuspend,
        (Request::Resume, Stage::Resuming) => Join,
        (Request::Resume, Stage::Running) => Nothing,
        (Request::Resume, Stage::Pending | Stage::Terminating) => Refuse(Refusal::Busy(stage)),

        (Request::Enter, Stage::Running) => Open,
        (Request::Enter, Stage::Resuming) => Join,
        (Request::Enter, Stage::Suspended) if wakes => Resume,
        (Request::Enter, Stage::Suspending) if wakes => CancelSuspend,
        (Request::Enter, Stage::Suspended | Stage::Suspending) => Refuse(Refusal::Closed),

        (Request::Idle, Stage::Running) if never_stays_suspended => Terminate,
        (Request::Idle, Stage::Running) => Suspend,
        (Request::Idle, _) => Nothing,

        // An application without a guest cannot end; one that ends while it is being suspended has ended all the same.
        (Request::Exit, Stage::Suspended | Stage::Resuming) => Nothing,
        (Request::Exit, Stage::Pending | Stage::Running | Stage::Suspending) => Terminate,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAGES: [Stage; 7] = [
        Stage::Pending,
        Stage::Running,
        Stage::Suspending,
        Stage::Suspended,
        Stage::Resuming,
        Stage::Terminating,
        Stage::Terminated,
    ];
    const REQUESTS: [Request; 7] = [
        Request::Suspend,
        Request::Resume,
        Request::Terminate,
        Request::Enter,
        Request::Idle,
        Request::Expire,
        Request::Exit,
    ];

    fn policy() -> impl Strategy<Value = Option<IdlePolicy>> {
        prop::option::of(
            (60u32..100, 0u32..3, any::<bool>()).prop_map(|(idle, suspended, wakes)| IdlePolicy {
                max_idle_duration_seconds: idle,
                suspended_duration_seconds: suspended,
                auto_resume_enabled: wakes,
            }),
        )
    }

    /// The stage once what was decided has been carried out well.
    fn after(stage: Stage, decision: Decision) -> Stage {
        match decision {
            Decision::Suspend => Stage::Suspended,
            Decision::Resume | Decision::CancelSuspend => Stage::Running,
            Decision::Terminate => Stage::Terminated,
            Decision::Join | Decision::Nothing | Decision::Open | Decision::Refuse(_) => stage,
        }
    }

    proptest! {
        #[test]
        fn nothing_leaves_terminated(request in prop::sample::select(&REQUESTS), policy in policy()) {
            let decision = decide(Stage::Terminated, request, policy.as_ref());
            prop_assert_eq!(after(Stage::Terminated, decision), Stage::Terminated);
        }

        #[test]
        fn whatever_is_asked_in_whatever_order_a_terminate_ends_it(
            stage in prop::sample::select(&STAGES),
            requests in prop::collection::vec(prop::sample::select(&REQUESTS), 0..20),
            policy in policy(),
        ) {
            let mut stage = stage;
            for request in requests {
                stage = after(stage, decide(stage, request, policy.as_ref()));
            }
            let last = decide(stage, Request::Terminate, policy.as_ref());
            prop_assert!(matches!(last, Decision::Terminate | Decision::Join | Decision::Nothing));
        }

        #[test]
        fn the_gate_opens_in_running_only(stage in prop::sample::select(&STAGES), policy in policy()) {
            let open = decide(stage, Request::Enter, policy.as_ref()) == Decision::Open;
            prop_assert_eq!(open, stage == Stage::Running);
        }

        #[test]
        fn traffic_never_wakes_a_microvm_without_auto_resume(stage in prop::sample::select(&STAGES)) {
            let policy = IdlePolicy {
                max_idle_duration_seconds: 60, suspended_duration_seconds: 60, auto_resume_enabled: false,
            };
            for policy in [None, Some(&policy)] {
                let decision = decide(stage, Request::Enter, policy);
                prop_assert!(!matches!(decision, Decision::Resume | Decision::CancelSuspend));
            }
        }

        #[test]
        fn suspend_and_resume_are_repeatable(policy in policy()) {
            prop_assert_eq!(decide(Stage::Suspended, Request::Suspend, policy.as_ref()), Decision::Nothing);
            prop_assert_eq!(decide(Stage::Running, Request::Resume, policy.as_ref()), Decision::Nothing);
        }
    }

    #[test]
    fn a_window_of_zero_terminates_instead_of_suspending() {
        let policy = IdlePolicy {
            max_idle_duration_seconds: 60,
            suspended_duration_seconds: 0,
            auto_resume_enabled: true,
        };
        assert_eq!(
            decide(Stage::Running, Request::Idle, Some(&policy)),
            Decision::Terminate
        );
    }
}
