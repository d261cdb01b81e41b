//! Certificates: one authority, one certificate for all servers, one for each client.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::write;

/// A folder with PEM files: `ca.crt`; `NAME.crt` and `NAME.key` for the servers and for each client; the key pair `service-account.*` that signs tokens.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// The certificate of the administrator (group `system:masters`).
    pub const ADMIN: &str = "admin";
    pub(crate) const API_SERVER: &str = "apiserver-etcd-client";
    pub(crate) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
    pub(crate) const SERVER: &str = "server";
    pub(crate) const SERVICE_ACCOUNT: &str = "service-account";

    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let pki = Self { dir: dir.to_owned() };
        let mut params = named("devcluster", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        write(&pki.ca(), params.self_signed(&key)?.pem())?;
        let ca = Issuer::new(params, key);

        let mut server = named(Self::SERVER, None);
        for name in ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc"] {
            server.subject_alt_names.push(match name.parse() {
                Ok(address) => rcgen::SanType::IpAddress(address),
                Err(_) => rcgen::SanType::DnsName(name.try_into()?),
            });
        }
        pki.issue(&ca, Self::SERVER, server, ExtendedKeyUsagePurpose::ServerAuth)?;
        for (file, user, group) in [
            (Self::ADMIN, "admin", Some("system:masters")),
            (Self::CONTROLLER_MANAGER, "system:kube-controller-manager", None),
            (Self::API_SERVER, "kube-apiserver", None),
        ] {
            pki.issue(&ca, file, named(user, group), ExtendedKeyUsagePurpose::ClientAuth)?;
        }
        let service_account = KeyPair::generate()?;
        write(&pki.key(Self::SERVICE_ACCOUNT), service_account.serialize_pem())?;
        write(&pki.public_key(Self::SERVICE_ACCOUNT), service_account.public_key_pem())?;
        Ok(pki)
    }

    pub(crate) fn open(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.certificate("ca")
    }

    /// The file of a certificate.
    #[must_use]
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.crt"))
    }

    /// The file of a private key.
    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    pub(crate) fn public_key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pub"))
    }

    /// An HTTP client that trusts the authority and no other, and identifies itself as one of the clients.
    pub(crate) fn http_client(&self, identity: &str) -> anyhow::Result<reqwest::Client> {
        let read = |path: PathBuf| std::fs::read(&path).with_context(|| format!("can't read {}", path.display()));
        let identity = [read(self.certificate(identity))?, read(self.key(identity))?].concat();
        // It fails only where a provider was chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&read(self.ca())?)?)
            .identity(reqwest::Identity::from_pem(&identity)?)
            .timeout(std::time::Duration::from_secs(5))
            .no_proxy()
            .build()?)
    }

    fn issue(
        &self,
        ca: &Issuer<'_, KeyPair>,
        file: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        write(&self.certificate(file), params.signed_by(&key, ca)?.pem())?;
        write(&self.key(file), key.serialize_pem())?;
        Ok(())
    }
}

fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params
}
