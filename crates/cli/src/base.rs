//! `hearth base`: the container bases that a Dockerfile's FROM resolves to.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::{Out, spinner};
use crate::s3;
use crate::service::Service;

const PATH: &str = "/hearth/v1/bases";

/// What can be done with bases.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Import an archive made by `docker save`, or an OCI archive
    Import {
        /// The archive
        archive: PathBuf,
        /// What FROM will call it, as in `python:3.13`
        #[arg(long = "as", value_name = "NAME")]
        name: String,
    },
    /// List them
    Ls,
}

impl Command {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        match self {
            Self::Import { archive, name } => {
                if !archive.is_file() {
                    let cure = "Make one with `docker save NAME -o FILE`";
                    return Err(Error::failed(
                        format!("{} is not a file", archive.display()),
                        cure,
                    ));
                }
                let uri = s3::upload(service, &archive, "bases", ".tar").await?;
                let bar = spinner(format!("importing {name}"));
                let body = json!({ "archiveUri": uri, "name": name });
                let answer = service
                    .call("lambda", Method::POST, PATH, None, Some(body))
                    .await?;
                bar.finish_and_clear();
                out.print(answer, || format!("FROM {name}"))
            }
            Self::Ls => {
                let answer = service.call("lambda", Method::GET, PATH, None, None).await?;
                let rows = rows(&answer);
                out.table(answer, &["NAME"], &rows)
            }
        }
    }
}

/// `{"items": [{"name": …}, …]}` as rows.
fn rows(answer: &Value) -> Vec<Vec<String>> {
    let bases = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    bases
        .iter()
        .filter_map(|base| Some(vec![base["name"].as_str()?.to_owned()]))
        .collect()
}
