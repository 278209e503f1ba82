use hearth_network::{probe_limit, probe_rules};

use crate::world::{on_a_machine, run};

fn state() -> String {
    run("ip", "-o link") + &run("nft", "list ruleset")
}

#[test]
fn this_kernel_can_what_guests_need_and_the_trial_leaves_nothing() {
    on_a_machine(|| async {
        let before = state();
        probe_rules().expect("the rules are taken");
        probe_limit().expect("a link is held to a rate");
        assert_eq!(state(), before);
    });
}
