//! One certificate: order, proof, signature.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use tokio::time::sleep;

use crate::{
    AcmeConfig, AcmeError,
    hook::{self, Act},
};

/// How the authority is asked whether it is done.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(300));

/// Private key and certificate chain for the wildcard of the domain, in PEM.
pub(crate) async fn certificate(config: &AcmeConfig, account: &Account) -> Result<String, AcmeError> {
    let names = [Identifier::Dns(format!("*.{}", config.domain))];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let record = format!("_acme-challenge.{}.", config.domain);
    let mut values = Vec::new();
    let proved = prove(config, &mut order, &record, &mut values).await;
    for value in &values {
        // What stays proves nothing to anybody else, but the operator's zone should not fill up.
        if let Err(error) = hook::call(&config.dns_program, Act::Cleanup, &record, value).await {
            tracing::warn!(%error, name = record, "a TXT record was not removed");
        }
    }
    proved?;
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(format!("{}\n{chain}", key.trim_end()))
}

/// Has the TXT record made for every proof; `values` are those that the operator's program was asked for.
async fn prove(
    config: &AcmeConfig,
    order: &mut Order,
    record: &str,
    values: &mut Vec<String>,
) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(AcmeError::Refused(format!("an authorization is {status:?}"))),
        }
        let mut challenge = authorization
            .challenge(ChallengeType::Dns01)
            .ok_or_else(|| AcmeError::Refused("it offers no proof by DNS".into()))?;
        let value = challenge.key_authorization().dns_value();
        // First noted: what a failing program has half done is to be removed, too.
        values.push(value.clone());
        hook::call(&config.dns_program, Act::Present, record, &value).await?;
        sleep(config.propagation).await;
        challenge.set_ready().await?;
    }
    match order.poll_ready(&POLLING).await? {
        OrderStatus::Invalid => Err(AcmeError::Refused(why(order).await)),
        _ => Ok(()),
    }
}

/// What the authority found when it looked.
async fn why(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            break;
        };
        if let Some(problem) = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref())
        {
            return problem.to_string();
        }
    }
    "it does not say why".into()
}
