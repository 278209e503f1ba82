//! The endpoints' certificate from a public authority: the operator's settings, and what is made of them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hearth_acme::{AcmeConfig, ExternalAccount, Renewer};
use hearth_wire::Sensitive;
use http::Uri;
use serde::Deserialize;

use crate::config::Config;

/// How a certificate for the endpoints is obtained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcmeSettings {
    /// The authority's directory.
    pub directory: String,
    /// PEM file with the certificates that the directory is trusted by; those of the machine when absent.
    pub ca: Option<PathBuf>,
    /// Where the authority reaches the operator, e.g. `mailto:ops@example.com`.
    #[serde(default)]
    pub contact: Vec<String>,
    /// Whether the operator agrees to the authority's terms.
    #[serde(default)]
    pub terms_agreed: bool,
    /// Program that makes and removes the TXT record.
    pub dns_program: PathBuf,
    /// Seconds from the record's making until the authority is told to look for it.
    #[serde(default = "default_propagation_seconds")]
    pub propagation_seconds: u64,
    /// An account that the operator has with the authority already.
    pub external_account: Option<ExternalAccountSettings>,
}

/// What an authority gives for such an account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalAccountSettings {
    /// The key's name.
    pub key_id: String,
    /// The key, in Base64 for URLs.
    pub hmac_key: Sensitive,
}

fn default_propagation_seconds() -> u64 {
    30
}

impl AcmeSettings {
    /// Everything that can be said without looking at the machine.
    pub(crate) fn check(&self, domain: &str) -> anyhow::Result<()> {
        let is_https = self.directory.parse().is_ok_and(|directory: Uri| {
            directory.scheme_str() == Some("https") && directory.host().is_some()
        });
        anyhow::ensure!(
            is_https,
            "acme.directory {:?} must be the https:// URL of a certificate authority's ACME directory",
            self.directory
        );
        anyhow::ensure!(
            self.terms_agreed,
            "acme: read the certificate authority's terms and set acme.terms_agreed = true"
        );
        anyhow::ensure!(
            domain.contains('.') && !domain.ends_with("localhost"),
            "acme: nobody gives certificates for {domain}. Set endpoint_domain to a domain of yours"
        );
        if let Some(wrong) = self.contact.iter().find(|contact| !contact.contains(':')) {
            anyhow::bail!("acme.contact {wrong:?} must be a URL such as mailto:ops@example.com");
        }
        self.external_account()?;
        Ok(())
    }

    /// Whether the program can be run, or why not.
    pub(crate) fn check_program(&self) -> anyhow::Result<()> {
        let program = &self.dns_program;
        let is_program = std::fs::metadata(program)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        anyhow::ensure!(
            program.is_absolute() && is_program,
            "acme.dns_program {} is no executable file. Give the full path of a program that takes `present|cleanup NAME VALUE`",
            program.display()
        );
        Ok(())
    }

    fn external_account(&self) -> anyhow::Result<Option<ExternalAccount>> {
        let Some(account) = &self.external_account else {
            return Ok(None);
        };
        let key = BASE64_URL_SAFE_NO_PAD
            .decode(account.hmac_key.trim_end_matches('='))
            .ok()
            .filter(|key| !key.is_empty())
            .context("acme.external_account.hmac_key must be Base64 as in URLs (letters, digits, - and _)")?;
        Ok(Some(ExternalAccount {
            key_id: account.key_id.clone(),
            key,
        }))
    }
}

/// Directory of accounts and certificates.
fn directory(data: &Path) -> PathBuf {
    data.join("acme")
}

/// Whoever keeps the endpoints' certificate fresh, if the operator wants one from an authority.
pub(crate) fn renewer(config: &Config) -> anyhow::Result<Option<Renewer>> {
    let Some(settings) = &config.settings.acme else {
        return Ok(None);
    };
    settings.check_program()?;
    let roots_pem = settings
        .ca
        .as_ref()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read acme.ca {}", path.display())));
    let renewer = Renewer::open(AcmeConfig {
        directory_url: settings.directory.clone(),
        roots_pem: roots_pem.transpose()?,
        contact: settings.contact.clone(),
        external_account: settings.external_account()?,
        domain: config
            .settings
            .endpoint_domain
            .trim_matches('.')
            .to_ascii_lowercase(),
        dns_program: settings.dns_program.clone(),
        propagation: Duration::from_secs(settings.propagation_seconds),
        directory: directory(&config.data),
    });
    Ok(Some(renewer.context("acme cannot be used")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "directory = 'https://ca.example/directory'\nterms_agreed = true\ndns_program = '/bin/true'\n";

    fn check(settings: &str, domain: &str) -> Result<(), String> {
        let settings: AcmeSettings = toml::from_str(settings).map_err(|error| error.to_string())?;
        settings.check(domain).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_no_authority_could_serve_is_refused_with_its_cure() {
        check(GOOD, "vm.example.com").expect("good");
        for (settings, domain, cure) in [
            (
                GOOD.replace("https", "http"),
                "vm.example.com",
                "must be the https:// URL",
            ),
            (
                GOOD.replace("true\n", "false\n"),
                "vm.example.com",
                "set acme.terms_agreed = true",
            ),
            (
                GOOD.to_owned(),
                "microvm.localhost",
                "Set endpoint_domain to a domain of yours",
            ),
            (
                format!("{GOOD}contact = ['ops@example.com']"),
                "vm.example.com",
                "mailto:",
            ),
            (
                format!("{GOOD}external_account = {{ key_id = 'k', hmac_key = 'no base 64!' }}"),
                "vm.example.com",
                "hmac_key must be Base64",
            ),
        ] {
            let error = check(&settings, domain).expect_err("refused");
            assert!(error.contains(cure), "{error}");
            assert!(!error.contains('\n') && !error.contains("no base 64"), "{error}");
        }
    }

    #[test]
    fn a_program_must_be_one() {
        for (path, good) in [
            ("/bin/true", true),
            ("bin/true", false),
            ("/etc/passwd", false),
            ("/bin", false),
        ] {
            let settings: AcmeSettings = toml::from_str(&GOOD.replace("/bin/true", path)).expect("readable");
            assert_eq!(settings.check_program().is_ok(), good, "{path}");
        }
    }
}
