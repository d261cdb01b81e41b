//! A real Kubernetes control plane and a real `MinIO` on this machine, for tests and the demo.
//!
//! [`Cluster::start`] puts up etcd, kube-apiserver, kube-controller-manager and, if wanted, [`Minio`] on free ports of the
//! loopback interface, with TLS and RBAC on, in a temporary folder. Dropping it ends the processes and removes the folder; the
//! kernel ends them where no destructor runs (see [`Process`]). The program `devcluster` runs a command beside such a cluster and
//! hands it an [`Env`].

mod control_plane;
mod env;
mod minio;
mod pki;
mod process;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use self::control_plane::ControlPlane;
pub use self::{
    env::{Env, MinioAccess},
    minio::Minio,
    pki::Pki,
    process::Process,
};

/// A running control plane, and `MinIO` where it was asked for.
pub struct Cluster {
    // In this order they are ended: clients before servers, the folder last.
    minio: Option<Minio>,
    _control_plane: ControlPlane,
    pki: Pki,
    dir: TempDir,
}

impl Cluster {
    /// Starts everything and waits until it answers. `bin` is the folder of the programs (`tests/tools/build`).
    ///
    /// # Errors
    /// Says which part failed, and shows the end of its log. What was started until then is ended.
    pub async fn start(bin: &Path, with_minio: bool) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("devcluster-").tempdir().context("no temporary folder")?;
        let pki = Pki::create(&dir.path().join("pki")).context("certificates")?;
        let minio = async {
            if !with_minio {
                return Ok(None);
            }
            Minio::start(bin, &pki, &dir.path().join("minio"), vec![]).await.map(Some)
        };
        let (control_plane, minio) = tokio::try_join!(ControlPlane::start(bin, &pki, dir.path()), minio)?;
        Ok(Self { minio, _control_plane: control_plane, pki, dir })
    }

    /// What a command needs to use it.
    #[must_use]
    pub fn env(&self, bin: &Path) -> Env {
        Env {
            bin: bin.to_owned(),
            dir: self.dir.path().to_owned(),
            kubeconfig: self.dir.path().join("admin.kubeconfig"),
            pki: self.pki.clone(),
            minio: self.minio.as_ref().map(Minio::access),
        }
    }
}

/// A port of the loopback interface that nobody listens on.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
    std::fs::write(path, content).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path.to_owned())
}
