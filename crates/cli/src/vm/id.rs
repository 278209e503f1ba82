//! From what a person types to a MicroVM's id.

use aws_sdk_lambdamicrovms::operation::get_microvm::GetMicrovmOutput;
use aws_sdk_lambdamicrovms::types::{MicrovmItem, MicrovmState};

use crate::error::{Error, Result};
use crate::service::Service;

const PREFIX: &str = "microvm-";
/// Characters of a UUID.
const UUID_LEN: usize = 36;

/// Every MicroVM the service lists.
pub(crate) async fn list(service: &Service) -> Result<Vec<MicrovmItem>> {
    let items = service.microvms.list_microvms().into_paginator().items().send();
    items
        .collect::<std::result::Result<Vec<_>, _>>()
        .await
        .map_err(|error| service.error(error))
}

/// The MicroVM with this id.
pub(crate) async fn get(service: &Service, id: &str) -> Result<GetMicrovmOutput> {
    let vm = service.microvms.get_microvm().microvm_identifier(id).send().await;
    vm.map_err(|error| service.error(error))
}

/// The id that `typed` stands for: a whole id, or the beginning of exactly one, with or without
/// `microvm-`.
pub(crate) async fn resolve(service: &Service, typed: &str) -> Result<String> {
    let wanted = with_prefix(typed);
    if wanted.len() == PREFIX.len() + UUID_LEN {
        return Ok(wanted);
    }
    let items = list(service).await?;
    let (ended, alive): (Vec<_>, Vec<_>) = items
        .iter()
        .partition(|item| item.state == MicrovmState::Terminated);
    let ids = |items: Vec<&MicrovmItem>| {
        items
            .into_iter()
            .map(|item| item.microvm_id.clone())
            .collect::<Vec<_>>()
    };
    pick(&wanted, &ids(alive), &ids(ended))
}

fn with_prefix(typed: &str) -> String {
    if typed.starts_with(PREFIX) {
        typed.to_owned()
    } else {
        format!("{PREFIX}{typed}")
    }
}

/// One that is alive goes before those that have ended.
fn pick(wanted: &str, alive: &[String], ended: &[String]) -> Result<String> {
    for ids in [alive, ended] {
        let mut matches = ids.iter().filter(|id| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some(only), None) => return Ok(only.clone()),
            (Some(first), Some(second)) => {
                let cause = format!("{wanted} could be {first}, {second} or others");
                return Err(Error::failed(cause, "Type more of it"));
            }
            (None, _) => {}
        }
    }
    Err(Error::failed(
        format!("no MicroVM has an id that begins with {wanted}"),
        "List them: hearth ps -a",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(typed: &str) -> Result<String> {
        let alive = ["microvm-abc1", "microvm-abd2"].map(str::to_owned);
        let ended = ["microvm-abc9", "microvm-f00"].map(str::to_owned);
        pick(&with_prefix(typed), &alive, &ended)
    }

    #[test]
    fn a_unique_beginning_is_enough_with_or_without_the_prefix() {
        assert_eq!(picked("abd").expect("unique"), "microvm-abd2");
        assert_eq!(picked("microvm-abd").expect("unique"), "microvm-abd2");
    }

    #[test]
    fn one_that_is_alive_goes_before_one_that_has_ended() {
        assert_eq!(picked("abc").expect("unique among the living"), "microvm-abc1");
        assert_eq!(picked("f").expect("unique"), "microvm-f00");
    }

    #[test]
    fn an_ambiguous_or_unknown_beginning_is_refused() {
        let line = |typed| picked(typed).expect_err("refused").line().expect("a line");
        assert_eq!(
            line("ab"),
            "microvm-ab could be microvm-abc1, microvm-abd2 or others. Type more of it."
        );
        assert!(line("x").ends_with("List them: hearth ps -a."));
    }
}
