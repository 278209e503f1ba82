use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use hearth_admission::Rates;
use hearth_lifecycle::Quotas;
use serde::Deserialize;

use super::Settings;

/// What an account may have instead of what others may.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccountSettings {
    /// Those named here; the others are as for every account.
    pub quotas: toml::Table,
    /// Those named here; the others are as for every account.
    pub rates: BTreeMap<String, u32>,
}

impl Settings {
    /// The rates of accounts that have rates of their own.
    pub(crate) fn rates_of_accounts(&self) -> HashMap<String, Rates> {
        let own = |settings: &AccountSettings| self.rates.clone().overridden_by(&settings.rates);
        self.accounts
            .iter()
            .map(|(account, settings)| (account.clone(), own(settings)))
            .collect()
    }

    /// The quotas of accounts that have quotas of their own.
    pub(crate) fn quotas_of_accounts(&self) -> anyhow::Result<HashMap<String, Quotas>> {
        let own = |(account, settings): (&String, &AccountSettings)| {
            let mut quotas = toml::Table::try_from(&self.quotas)?;
            quotas.extend(settings.quotas.clone());
            let quotas = quotas
                .try_into()
                .with_context(|| format!("the quotas of account {account} are wrong"))?;
            Ok((account.clone(), quotas))
        };
        self.accounts.iter().map(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;

    #[test]
    fn an_account_has_its_own_quotas_and_rates_and_the_rest_of_everybodys() {
        let text = "[quotas]\nimages = 7\n[rates]\nGetMicrovm = 3\n\
                    [accounts.111122223333.quotas]\nmemory_mib = 1024\n[accounts.111122223333.rates]\nRunMicrovm = 0\n";
        let settings: Settings = toml::from_str(text).expect("settings");
        settings.check().expect("good");
        let quotas = &settings.quotas_of_accounts().expect("good")["111122223333"];
        assert_eq!((quotas.images, quotas.memory_mib), (7, 1024));
        let rates = &settings.rates_of_accounts()["111122223333"].0;
        assert_eq!(
            (rates["RunMicrovm"], rates["GetMicrovm"], rates["SuspendMicrovm"]),
            (0, 3, 2)
        );
    }

    #[test]
    fn rates_and_quotas_of_nothing_are_refused_by_name() {
        for (text, name) in [
            ("[rates]\nRunMicroVM = 1\n", "RunMicroVM"),
            ("[accounts.111122223333.quotas]\nimagse = 1\n", "imagse"),
            ("[accounts.1]\n", "\"1\""),
        ] {
            let error = format!("{:#}", check(text).expect_err("refused"));
            assert!(error.contains(name), "{error}");
        }
    }
}
