//! How a node's certificate is trusted: by the system's roots, by a pinned fingerprint, or not at all. rustls with ring.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::Error;

/// Which certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Those that the system's roots vouch for, for the name in the address.
    SystemRoots,
    /// Exactly the one with this fingerprint, whatever its names, issuer and dates.
    Fingerprint(Fingerprint),
    /// Any: whoever answers gets the credentials. Only where a person chose it.
    Off,
}

/// SHA-256 of a certificate (the leaf, DER), as `pvenode cert info` and the web interface show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// Not a SHA-256 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a SHA-256 fingerprint: 32 pairs of hexadecimal digits are needed, with or without colons (AB:CD:…)"
)]
pub struct BadFingerprint;

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let text = text.trim();
        let digits: String = if text.contains(':') {
            if text.split(':').any(|pair| pair.len() != 2) {
                return Err(BadFingerprint);
            }
            text.replace(':', "")
        } else {
            text.to_owned()
        };
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadFingerprint);
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = &digits[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = BadFingerprint;

    fn try_from(text: String) -> Result<Self, BadFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A configuration with its own crypto provider, so that no process-wide one is needed.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let failed = |error: rustls::Error| Error::setup(format!("no TLS: {error}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match tls {
        Tls::SystemRoots => builder.with_platform_verifier().map_err(|error| {
            Error::setup(format!(
                "the system's certificates cannot be used ({error}); install ca-certificates or pin the node's fingerprint"
            ))
        })?,
        Tls::Fingerprint(_) | Tls::Off => {
            let pinned = match tls {
                Tls::Fingerprint(fingerprint) => Some(*fingerprint),
                _ => None,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pinned, provider }))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The fingerprint of the certificate that `url` presents, after a handshake that proves it holds the key.
pub(super) async fn presented(url: &Url, limit: Duration) -> Result<Fingerprint, Error> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, url.port_or_known_default().unwrap_or(8006));
    let unsent = |cause: String| Error::Unsent {
        call: format!("TLS handshake with {}", url.authority()),
        cause,
        transient: true,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| unsent(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&Tls::Off)?));
    let stream = timeout(limit, async {
        let stream = TcpStream::connect(address).await?;
        connector.connect(name, stream).await
    })
    .await
    .map_err(|_| unsent(format!("no connection within {} s", limit.as_secs_f32())))?
    .map_err(|error| unsent(error.to_string()))?;
    let certificates = stream.get_ref().1.peer_certificates();
    certificates
        .and_then(|chain| chain.first())
        .map(|leaf| Fingerprint::of(leaf))
        .ok_or_else(|| unsent("no certificate was presented".to_owned()))
}

/// Accepts the pinned certificate, or any without a pin; the handshake's signature is checked in both cases.
#[derive(Debug)]
struct Pinned {
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate has the fingerprint {presented}, but {pinned} is pinned; if the node's certificate was renewed, pin the new one"
)]
struct WrongFingerprint {
    presented: Fingerprint,
    pinned: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Fingerprint::of(end_entity);
        match self.pinned {
            Some(pinned) if pinned != presented => {
                let wrong = WrongFingerprint { presented, pinned };
                Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_in_every_spelling() {
        let fingerprint = Fingerprint::of(b"x");
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 95);
        for spelling in [
            text.clone(),
            text.to_lowercase(),
            text.replace(':', ""),
            format!(" {text}\n"),
        ] {
            assert_eq!(spelling.parse(), Ok(fingerprint), "{spelling}");
        }
        for wrong in [
            "",
            "AB:CD",
            &text[3..],
            &text.replacen(':', "", 1),
            &text.replace('2', "G"),
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(BadFingerprint), "{wrong}");
        }
        let json = serde_json::to_string(&fingerprint).expect("json");
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&json).expect("back"),
            fingerprint
        );
    }
}
