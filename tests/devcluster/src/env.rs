//! What a command learns of the cluster that it runs beside: environment variables.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::Pki;

/// Where the cluster is and how to use it.
#[derive(Clone, Debug)]
pub struct Env {
    /// The folder of the programs.
    pub bin: PathBuf,
    /// The cluster's folder: logs, and `audit.log` of the API server.
    pub dir: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Certificates and keys.
    pub pki: Pki,
    /// The `MinIO` server, if there is one.
    pub minio: Option<MinioAccess>,
}

/// How to reach a `MinIO` server. Its certificate is from the cluster's authority.
#[derive(Clone, Debug)]
pub struct MinioAccess {
    /// Its URL.
    pub endpoint: String,
    /// The administrator's access key.
    pub root_user: String,
    /// The administrator's secret key.
    pub root_password: String,
}

const KUBECONFIG: &str = "KUBECONFIG";
const BIN: &str = "DEVCLUSTER_BIN";
const DIR: &str = "DEVCLUSTER_DIR";
const PKI: &str = "DEVCLUSTER_PKI";
const MINIO_ENDPOINT: &str = "DEVCLUSTER_MINIO_ENDPOINT";
const MINIO_ROOT_USER: &str = "DEVCLUSTER_MINIO_ROOT_USER";
const MINIO_ROOT_PASSWORD: &str = "DEVCLUSTER_MINIO_ROOT_PASSWORD";

impl Env {
    /// Reads it from the environment of this process.
    ///
    /// # Errors
    /// Where the process does not run beside a cluster.
    pub fn read() -> anyhow::Result<Self> {
        let variable = |name: &str| {
            std::env::var(name)
                .with_context(|| format!("{name} is not set: run the tests by `make test`, or in `make cluster`"))
        };
        let minio = match std::env::var(MINIO_ENDPOINT) {
            Err(_) => None,
            Ok(endpoint) => Some(MinioAccess {
                endpoint,
                root_user: variable(MINIO_ROOT_USER)?,
                root_password: variable(MINIO_ROOT_PASSWORD)?,
            }),
        };
        Ok(Self {
            bin: variable(BIN)?.into(),
            dir: variable(DIR)?.into(),
            kubeconfig: variable(KUBECONFIG)?.into(),
            pki: Pki::open(variable(PKI)?.into()),
            minio,
        })
    }

    /// The same as variables, with the programs first on the `PATH`.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut variables = vec![
            ("PATH", format!("{}:{path}", self.bin.display())),
            (KUBECONFIG, text(&self.kubeconfig)),
            (BIN, text(&self.bin)),
            (DIR, text(&self.dir)),
            (PKI, text(self.pki.dir())),
        ];
        if let Some(MinioAccess { endpoint, root_user, root_password }) = self.minio.clone() {
            variables.extend([(MINIO_ENDPOINT, endpoint), (MINIO_ROOT_USER, root_user), (MINIO_ROOT_PASSWORD, root_password)]);
        }
        variables
    }
}
