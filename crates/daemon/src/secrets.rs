//! Keys made at the first start, kept in the database.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use hearth_state::{State, Table};
use hearth_token::Keyring;
use hearth_wire::page::PageKey;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// An access key of the AWS APIs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessKeyRecord {
    pub access_key_id: String,
    pub secret_access_key: hearth_wire::Sensitive,
    pub account: String,
}

#[derive(Serialize, Deserialize)]
struct Setting {
    name: String,
    /// Base64.
    value: hearth_wire::Sensitive,
}

/// What the rooms need.
pub(crate) struct Secrets {
    pub access_keys: Vec<AccessKeyRecord>,
    pub keyring: Keyring,
    pub page_key: PageKey,
}

/// Reads the secrets, making those that are missing.
pub(crate) async fn load(state: &State, account: &str) -> anyhow::Result<Secrets> {
    let mut access_keys: Vec<AccessKeyRecord> = state.all(Table::AccessKeys).await?;
    if access_keys.is_empty() {
        let key = AccessKeyRecord {
            access_key_id: format!("AKIA{}", letters(16)?),
            secret_access_key: STANDARD.encode(random::<30>()?).into(),
            account: account.to_owned(),
        };
        state
            .put(Table::AccessKeys, &key.access_key_id, account, &key)
            .await?;
        access_keys.push(key);
    }
    let settings: Vec<Setting> = state.all(Table::Settings).await?;
    let keyring = setting(state, &settings, "token-keyring", || {
        Ok(Keyring::generate().to_bytes())
    })
    .await?;
    let page_key = setting(state, &settings, "page-key", || Ok(random::<32>()?.to_vec())).await?;
    Ok(Secrets {
        access_keys,
        keyring: Keyring::from_bytes(&keyring).context("the keys of the endpoint tokens cannot be read")?,
        page_key: PageKey::new(&page_key),
    })
}

async fn setting(
    state: &State,
    settings: &[Setting],
    name: &str,
    make: impl FnOnce() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<u8>> {
    if let Some(setting) = settings.iter().find(|setting| setting.name == name) {
        return STANDARD
            .decode(setting.value.as_bytes())
            .with_context(|| format!("setting {name} is damaged"));
    }
    let value = make()?;
    let record = Setting {
        name: name.into(),
        value: STANDARD.encode(&value).into(),
    };
    state.put(Table::Settings, name, "", &record).await?;
    Ok(value)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .ok()
        .context("the system gives no random bytes")?;
    Ok(bytes)
}

/// Letters and digits as in access key ids.
fn letters(count: usize) -> anyhow::Result<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bytes = random::<64>()?;
    Ok(bytes
        .iter()
        .take(count)
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect())
}
