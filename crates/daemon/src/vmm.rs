//! Which VMM runs the guests.

use std::sync::Arc;

use anyhow::Context;
use hearth_vmm::{Acceleration, Driver, Platform, VmmError, firecracker::Firecracker, kvm, qemu::Qemu};
use prometheus_client::{metrics::info::Info, registry::Registry};

use crate::config::{AccelerationChoice, Settings, VmmChoice};

/// The chosen driver.
pub(crate) struct Chosen {
    pub driver: Arc<dyn Driver>,
    /// Why it is not another; empty when it was the first choice.
    pub because: String,
    /// Whether it opens a clone's memory file for writing although it never writes it.
    pub writable_memory_files: bool,
}

/// As the settings say. Left to themselves: Firecracker where KVM is usable and Firecracker is there, else QEMU with KVM,
/// else QEMU by translation.
pub(crate) fn choose(settings: &Settings) -> anyhow::Result<Chosen> {
    let acceleration = acceleration(settings)?;
    let firecracker = || Firecracker::find(&settings.firecracker);
    match choice(settings.vmm, &acceleration, firecracker)? {
        (Some(firecracker), because) => Ok(Chosen {
            driver: Arc::new(firecracker),
            because,
            writable_memory_files: false,
        }),
        (None, because) => {
            let qemu = Qemu::find(
                &settings.qemu,
                acceleration.map_or(Acceleration::Tcg, |()| Acceleration::Kvm),
            )?;
            Ok(Chosen {
                writable_memory_files: !qemu.maps_read_only_memory(),
                driver: Arc::new(qemu),
                because,
            })
        }
    }
}

/// What guests run on, as a metric.
pub(crate) fn register(platform: &Platform, registry: &mut Registry) {
    let labels = [
        ("driver", platform.driver.clone()),
        ("version", platform.version.clone()),
        ("acceleration", platform.acceleration.to_string()),
        ("machine", platform.machine.clone()),
        ("cpu", platform.cpu.clone()),
    ];
    let help = "The VMM that guests run on";
    registry.register("hearth_vmm", help, Info::new(labels.to_vec()));
}

/// `Err` with the cause when guests run by translation.
fn acceleration(settings: &Settings) -> anyhow::Result<Result<(), String>> {
    Ok(match settings.acceleration {
        AccelerationChoice::Kvm => Ok(()),
        AccelerationChoice::Tcg => Err("`acceleration` is \"tcg\"".into()),
        AccelerationChoice::Auto => match kvm::probe(&std::env::current_exe()?) {
            kvm::Usability::Usable => Ok(()),
            kvm::Usability::Unusable(cause) => Err(cause),
        },
    })
}

/// A found Firecracker, or `None` for QEMU and why.
fn choice<F>(
    vmm: VmmChoice,
    kvm: &Result<(), String>,
    find: impl FnOnce() -> Result<F, VmmError>,
) -> anyhow::Result<(Option<F>, String)> {
    match (vmm, kvm) {
        (VmmChoice::Qemu, Ok(())) => Ok((None, "`vmm` is \"qemu\"".into())),
        (VmmChoice::Qemu | VmmChoice::Auto, Err(cause)) => Ok((None, format!("KVM is not used: {cause}"))),
        (VmmChoice::Firecracker, Err(cause)) => anyhow::bail!(
            "Firecracker needs KVM, which is not used: {cause}. Use another machine, or set `vmm = \"auto\"` in hearthd.toml"
        ),
        (VmmChoice::Firecracker, Ok(())) => {
            let found = find().context("`vmm` is \"firecracker\"")?;
            Ok((Some(found), String::new()))
        }
        (VmmChoice::Auto, Ok(())) => Ok(match find() {
            Ok(found) => (Some(found), String::new()),
            Err(error) => (None, error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: fn() -> Result<&'static str, VmmError> = || Ok("firecracker");
    const MISSING: fn() -> Result<&'static str, VmmError> = || {
        Err(VmmError::Start {
            program: "firecracker".into(),
            cause: std::io::ErrorKind::NotFound.into(),
        })
    };

    #[test]
    fn firecracker_is_chosen_where_it_can_run() {
        let usable = Ok(());
        let unusable = Err("there is no /dev/kvm".to_owned());
        let chosen =
            |vmm, kvm, find: fn() -> Result<&'static str, VmmError>| choice(vmm, kvm, find).expect("a VMM");
        assert_eq!(chosen(VmmChoice::Auto, &usable, THERE).0, Some("firecracker"));
        assert_eq!(
            chosen(VmmChoice::Firecracker, &usable, THERE).0,
            Some("firecracker")
        );
        for (vmm, kvm, find, word) in [
            (VmmChoice::Auto, &usable, MISSING, "cannot start firecracker"),
            (VmmChoice::Auto, &unusable, THERE, "there is no /dev/kvm"),
            (VmmChoice::Qemu, &usable, THERE, "`vmm`"),
            (VmmChoice::Qemu, &unusable, THERE, "there is no /dev/kvm"),
        ] {
            let (found, because) = chosen(vmm, kvm, find);
            assert!(found.is_none() && because.contains(word), "{because}");
        }
    }

    #[test]
    fn a_firecracker_that_was_insisted_on_and_cannot_run_is_an_error_with_a_cure() {
        let refused = |kvm: &Result<(), String>, find| {
            let error = choice::<&str>(VmmChoice::Firecracker, kvm, find).expect_err("refused");
            format!("{error:#}")
        };
        let cause = refused(&Err("there is no /dev/kvm".into()), THERE);
        assert!(
            cause.contains("there is no /dev/kvm") && cause.contains("`vmm = "),
            "{cause}"
        );
        let cause = refused(&Ok(()), MISSING);
        assert!(
            cause.contains("cannot start firecracker") && cause.contains("Install it"),
            "{cause}"
        );
    }
}
