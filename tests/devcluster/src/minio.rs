//! A `MinIO` server with TLS.

use std::path::{Path, PathBuf};

use rand::distr::{Alphanumeric, SampleString as _};

use crate::{Pki, Process, env::MinioAccess, free_port};

/// A running `MinIO`. It can be ended and started again on the same port, with the same data or none.
pub struct Minio {
    process: Option<Process>,
    access: MinioAccess,
    bin: PathBuf,
    pki: Pki,
    dir: PathBuf,
    env: Vec<(&'static str, String)>,
}

impl Minio {
    /// Starts a server with its data below `dir` and with more variables in its environment, and waits until it answers.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn start(bin: &Path, pki: &Pki, dir: &Path, env: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir.join("certs"))?;
        std::fs::copy(pki.certificate(Pki::SERVER), dir.join("certs/public.crt"))?;
        std::fs::copy(pki.key(Pki::SERVER), dir.join("certs/private.key"))?;
        let access = MinioAccess {
            endpoint: format!("https://127.0.0.1:{}", free_port()?),
            root_user: "root-of-devcluster".to_owned(),
            root_password: Alphanumeric.sample_string(&mut rand::rng(), 40),
        };
        let (bin, pki, dir) = (bin.to_owned(), pki.clone(), dir.to_owned());
        let mut minio = Self { process: None, access, bin, pki, dir, env };
        minio.resume().await?;
        Ok(minio)
    }

    /// How to reach it.
    #[must_use]
    pub fn access(&self) -> MinioAccess {
        self.access.clone()
    }

    /// Ends the server; its data stay.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends the server and throws its data away.
    ///
    /// # Errors
    /// Where they can't be removed.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.stop();
        Ok(std::fs::remove_dir_all(self.dir.join("data"))?)
    }

    /// Starts the server again, where it was.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let (dir, MinioAccess { endpoint, root_user, root_password }) = (&self.dir, &self.access);
        std::fs::create_dir_all(dir.join("data"))?;
        let address = endpoint.trim_start_matches("https://");
        let path = |name: &str| dir.join(name).display().to_string();
        let args =
            ["server", "--quiet", "--address", address, "--certs-dir", &path("certs"), &path("data")].map(ToOwned::to_owned);
        let mut env = self.env.clone();
        env.extend([
            ("MINIO_ROOT_USER", root_user.clone()),
            ("MINIO_ROOT_PASSWORD", root_password.clone()),
            ("MINIO_BROWSER", "off".to_owned()),
            // The folder is on the disk of the operating system.
            ("MINIO_CI_CD", "on".to_owned()),
            ("HOME", path("")),
        ]);
        let mut process = Process::start(&self.bin.join("minio"), &args, &env, &dir.join("minio.log"))?;
        let http = self.pki.http_client(Pki::ADMIN)?;
        let health = format!("{endpoint}/minio/health/ready");
        process.ready(async || http.get(&health).send().await.is_ok_and(|answer| answer.status().is_success())).await?;
        self.process = Some(process);
        Ok(())
    }
}
