//! What clients on this machine need: where the daemon is, a key, whom to trust.

use std::{fs, path::Path};

use hearth_iam::KeyRecord;
use hearth_storage::durable;
use serde_json::json;

use crate::config::Config;

/// The system's own authorities, where Debian keeps them; `SSL_CERT_FILE` says otherwise.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes `client.json`, the authority alone, and a bundle of the system's authorities and ours.
pub(crate) fn write(config: &Config, key: &KeyRecord, ca_pem: &str) -> std::io::Result<()> {
    let directory = config.data.join("client");
    fs::create_dir_all(&directory)?;
    let (ca, bundle) = (directory.join("ca.pem"), directory.join("ca-bundle.pem"));
    durable::write_file_with_mode(&ca, ca_pem.as_bytes(), 0o644)?;
    let system = system_bundle();
    durable::write_file_with_mode(&bundle, format!("{system}\n{ca_pem}").as_bytes(), 0o644)?;
    let text = json!({
        "endpointUrl": format!("https://{}", config.settings.listen),
        "region": config.settings.region,
        "accessKeyId": key.access_key_id,
        "secretAccessKey": key.secret_access_key.0,
        "caBundle": bundle,
        "ca": ca,
        "gateway": config.settings.endpoint_listen.to_string(),
        "admin": config.settings.admin_listen.to_string(),
    });
    durable::write_file(&config.data.join("client.json"), format!("{text:#}\n").as_bytes())
}

fn system_bundle() -> String {
    let named = std::env::var("SSL_CERT_FILE").ok();
    let path = named
        .as_deref()
        .filter(|path| Path::new(path).exists())
        .unwrap_or(SYSTEM_BUNDLE);
    fs::read_to_string(path).unwrap_or_default()
}
