//! The account at the authority: made once, kept, told when the operator's address changes.

use instant_acme::{Account, ExternalAccountKey, NewAccount};

use crate::{
    AcmeConfig, AcmeError,
    client::Client,
    store::{Store, StoredAccount},
};

pub(crate) async fn account(
    config: &AcmeConfig,
    client: &Client,
    store: &Store,
) -> Result<Account, AcmeError> {
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let Some(stored) = store.account()? else {
        let new = NewAccount {
            contact: &contact,
            // The settings are refused unless the operator has.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = config.external_account.as_ref();
        let external = external.map(|account| ExternalAccountKey::new(account.key_id.clone(), &account.key));
        let (account, credentials) = builder
            .create(&new, config.directory_url.clone(), external.as_ref())
            .await?;
        store.keep_account(&StoredAccount::new(config.contact.clone(), credentials))?;
        tracing::info!(
            account = account.id(),
            "an account was made at the certificate authority"
        );
        return Ok(account);
    };
    let known = stored.contact;
    let account = builder.from_credentials(stored.credentials).await?;
    if known != config.contact {
        account.update_contacts(&contact).await?;
        if let Some(stored) = store.account()? {
            store.keep_account(&StoredAccount::new(config.contact.clone(), stored.credentials))?;
        }
    }
    Ok(account)
}
