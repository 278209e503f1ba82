//! The container's configuration: the `config` object of the OCI image specification, as far as it matters here.

use serde::{Deserialize, Deserializer, Serialize};

/// ENTRYPOINT, CMD, ENV, WORKDIR, USER. Other members of the OCI object are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// ENTRYPOINT in exec form.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// CMD in exec form.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// `KEY=VALUE`.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// WORKDIR.
    pub working_dir: String,
    /// USER.
    pub user: String,
}

impl ContainerConfig {
    /// The command to start; empty when the image names none.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oci_object_is_read_with_nulls_and_strangers() {
        let text = r#"{"Entrypoint": null, "Cmd": ["python3", "app.py"], "Env": ["A=b"], "WorkingDir": "/srv",
            "User": "www", "ExposedPorts": {"80/tcp": {}}, "Labels": null}"#;
        let config: ContainerConfig = serde_json::from_str(text).expect("reads");
        assert_eq!(config.argv(), ["python3", "app.py"]);
        assert_eq!(
            (config.working_dir.as_str(), config.user.as_str()),
            ("/srv", "www")
        );
    }
}
