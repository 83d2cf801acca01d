//! The self-signed certificate of the simulator: made once, kept beside the data file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::{Error, store};

/// What the TLS listener needs, and the fingerprint clients pin.
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, `AB:CD:…`.
    pub(crate) fingerprint: String,
}

impl Identity {
    /// Reads certificate and key from the folder of the data file, or makes them there; without a data file they live in memory.
    pub(crate) fn load(data_file: Option<&Path>) -> Result<Self, Error> {
        let Some(file) = data_file else {
            let (certificate, key) = generate()?;
            return Self::from_pem(&certificate, &key);
        };
        let certificate_file = file.with_extension("cert.pem");
        let key_file = file.with_extension("key.pem");
        if let (Ok(certificate), Ok(key)) = (
            fs::read_to_string(&certificate_file),
            fs::read_to_string(&key_file),
        ) {
            return Self::from_pem(&certificate, &key);
        }
        let (certificate, key) = generate()?;
        for (path, text) in [(&certificate_file, &certificate), (&key_file, &key)] {
            store::write(path, text.as_bytes()).map_err(|error| Error::Data {
                file: path.clone(),
                reason: error.to_string(),
            })?;
        }
        Self::from_pem(&certificate, &key)
    }

    fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let bad = |what: &str| Error::Certificate(format!("{what} cannot be read"));
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| bad("the certificate"))?;
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| bad("the private key"))?;
        let fingerprint = Sha256::digest(&certificate)
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<Vec<_>>()
            .join(":");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate], key)
            })
            .map_err(|error| Error::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            fingerprint,
        })
    }
}

fn generate() -> Result<(String, String), Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Error::Certificate(error.to_string()))?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}
