//! Keys made at the first start, kept in the database.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use hearth_iam::SessionKey;
use hearth_state::{State, Table};
use hearth_token::Keyring;
use hearth_wire::page::PageKey;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Setting {
    name: String,
    /// Base64.
    value: hearth_wire::Sensitive,
}

/// What the rooms need.
pub(crate) struct Secrets {
    pub keyring: Keyring,
    pub page_key: PageKey,
    pub session_key: SessionKey,
    /// Binds metadata tokens to their guests.
    pub metadata_key: Vec<u8>,
}

/// Reads the secrets, making those that are missing.
pub(crate) async fn load(state: &State) -> anyhow::Result<Secrets> {
    let settings: Vec<Setting> = state.all(Table::Settings).await?;
    let keyring = setting(state, &settings, "token-keyring", || {
        Ok(Keyring::generate().to_bytes())
    })
    .await?;
    let page_key = setting(state, &settings, "page-key", || Ok(random::<32>()?.to_vec())).await?;
    let session_key = setting(state, &settings, "session-key", || Ok(random::<32>()?.to_vec())).await?;
    let metadata_key = setting(state, &settings, "metadata-key", || Ok(random::<32>()?.to_vec())).await?;
    Ok(Secrets {
        metadata_key,
        keyring: Keyring::from_bytes(&keyring).context("the keys of the endpoint tokens cannot be read")?,
        page_key: PageKey::new(&page_key),
        session_key: SessionKey::new(&session_key)?,
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
