//! Which service to talk to: the environment's, or the daemon's of the data directory.

use std::env;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Where the daemon keeps its files unless told otherwise.
const DEFAULT_DATA: &str = "/var/lib/hearth";

/// `client.json`, which the daemon writes for its clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientFile {
    /// The control plane's URL.
    pub(crate) endpoint_url: String,
    /// The region to sign for.
    pub(crate) region: String,
    /// The key of the account.
    pub(crate) access_key_id: String,
    /// Its secret.
    pub(crate) secret_access_key: String,
    /// The system's certificate authorities and hearth's own, PEM.
    pub(crate) ca_bundle: PathBuf,
    /// Hearth's certificate authority alone, PEM.
    pub(crate) ca: PathBuf,
    /// Host and port where the MicroVMs' endpoints are served.
    pub(crate) gateway: String,
    /// Host and port of the listener for operators; not in files of earlier daemons.
    #[serde(default)]
    pub(crate) admin: Option<String>,
}

impl ClientFile {
    /// Reads the file of the daemon whose data directory is `data`.
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let path = Self::path(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoClientFile(path));
            }
            Err(error) => return Err(Error::file(&path)(error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            let cure = "Restart the daemon, which writes the file anew: hearth down && hearth up";
            Error::failed(format!("{} is damaged: {error}", path.display()), cure)
        })
    }

    /// Where the file is.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("client.json")
    }
}

/// Everything needed to reach and to trust the service.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The control plane's URL, without a slash at the end.
    pub(crate) endpoint: String,
    /// The region to sign for.
    pub(crate) region: String,
    /// Who signs.
    pub(crate) credentials: Credentials,
    /// PEM file of the authorities to trust; the system's when there is none.
    pub(crate) ca: Option<PathBuf>,
    /// Where the MicroVMs' endpoints are served; their names are resolved when there is none.
    pub(crate) gateway: Option<SocketAddr>,
    /// Host and port of the daemon's listener for operators.
    pub(crate) admin: Option<String>,
}

impl Settings {
    /// The environment decides when it names an endpoint, unless `--data` names a daemon; what it
    /// leaves open comes from the client file.
    pub(crate) fn load(data_option: Option<&Path>) -> Result<Self> {
        let endpoint = variable("AWS_ENDPOINT_URL").filter(|_| data_option.is_none());
        let file = ClientFile::read(&data_dir(data_option));
        match endpoint {
            None => Self::from_file(file?),
            Some(endpoint) => Self::from_environment(endpoint, file.ok(), variable),
        }
    }

    fn from_file(file: ClientFile) -> Result<Self> {
        Ok(Self {
            endpoint: file.endpoint_url.trim_end_matches('/').to_owned(),
            region: file.region,
            credentials: credentials(file.access_key_id, file.secret_access_key, None),
            ca: Some(file.ca),
            gateway: Some(address(&file.gateway)?),
            admin: file.admin,
        })
    }

    fn from_environment(
        endpoint: String,
        file: Option<ClientFile>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        // The file may belong to another daemon than the one the environment names.
        let file = file.filter(|file| file.endpoint_url.trim_end_matches('/') == endpoint);
        let keys = match (
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
            &file,
        ) {
            (Some(id), Some(secret), _) => credentials(id, secret, variable("AWS_SESSION_TOKEN")),
            (_, _, Some(file)) => {
                credentials(file.access_key_id.clone(), file.secret_access_key.clone(), None)
            }
            _ => {
                let cause = "AWS_ENDPOINT_URL is set, but AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not";
                return Err(Error::failed(cause, "Set them all: eval \"$(hearth env)\""));
            }
        };
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let from_file = |take: fn(&ClientFile) -> String| file.as_ref().map(take);
        Ok(Self {
            region: region
                .or(from_file(|f| f.region.clone()))
                .unwrap_or_else(|| "us-east-1".to_owned()),
            credentials: keys,
            ca: variable("AWS_CA_BUNDLE")
                .map(PathBuf::from)
                .or(file.as_ref().map(|f| f.ca.clone())),
            gateway: file.as_ref().map(|f| address(&f.gateway)).transpose()?,
            admin: file.as_ref().and_then(|f| f.admin.clone()),
            endpoint,
        })
    }
}

/// The daemon's data directory: `--data`, HEARTH_DATA, or the usual place.
pub(crate) fn data_dir(option: Option<&Path>) -> PathBuf {
    match option {
        Some(path) => path.to_owned(),
        None => PathBuf::from(variable("HEARTH_DATA").unwrap_or_else(|| DEFAULT_DATA.to_owned())),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn credentials(id: String, secret: String, token: Option<String>) -> Credentials {
    Credentials::new(id, secret, token, None, "hearth")
}

fn address(gateway: &str) -> Result<SocketAddr> {
    let address = gateway.to_socket_addrs().ok().and_then(|mut all| all.next());
    address.ok_or_else(|| {
        Error::failed(
            format!("the gateway address {gateway:?} is not HOST:PORT"),
            "Correct the daemon's configuration",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ClientFile {
        let text = r#"{"endpointUrl":"https://127.0.0.1:9700","region":"us-east-1","accessKeyId":"ID",
            "secretAccessKey":"SECRET","caBundle":"/d/bundle.pem","ca":"/d/ca.pem","gateway":"127.0.0.1:443"}"#;
        serde_json::from_str(text).expect("well formed")
    }

    #[test]
    fn the_client_file_alone_is_enough() {
        let settings = Settings::from_file(file()).expect("valid");
        assert_eq!(settings.endpoint, "https://127.0.0.1:9700");
        assert_eq!(settings.credentials.access_key_id(), "ID");
        assert_eq!(settings.ca.as_deref(), Some(Path::new("/d/ca.pem")));
        assert_eq!(settings.gateway, Some(([127, 0, 0, 1], 443).into()));
    }

    #[test]
    fn the_environment_wins_and_the_file_of_the_same_daemon_fills_the_gaps() {
        let set = |name: &str| (name == "AWS_REGION").then(|| "eu-west-1".to_owned());
        let settings =
            Settings::from_environment("https://127.0.0.1:9700/".into(), Some(file()), set).expect("valid");
        assert_eq!(
            (settings.region.as_str(), settings.credentials.access_key_id()),
            ("eu-west-1", "ID")
        );
        assert!(settings.gateway.is_some());
    }

    #[test]
    fn keys_of_one_daemon_never_go_to_another_endpoint() {
        let none = |_: &str| None;
        let error = Settings::from_environment("https://elsewhere:9700".into(), Some(file()), none);
        assert!(
            error
                .expect_err("no keys")
                .to_string()
                .contains("AWS_ACCESS_KEY_ID")
        );
    }
}
