//! The connection to the mail server: what `SMTP_URL` says, and how it is encrypted.
//!
//! Without `?tls=` STARTTLS is used where the server offers it. A password is never sent in clear text unless `?tls=none` says so: then a
//! server, or somebody between, that does not offer STARTTLS gets none. Without a password an unverifiable certificate is taken with a
//! warning, since the alternative would be no encryption at all.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{NotSent, Settings, words};
use crate::Config;
use crate::pve::Secret;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    /// From the first byte (`smtps:`).
    Whole,
    /// STARTTLS, or no mail (`?tls=required`).
    Required,
    /// STARTTLS where it is offered (no `tls`, or `?tls=opportunistic`).
    Offered,
    /// `?tls=none`
    Never,
}

/// What `SMTP_URL` says: `smtp[s]://[user:password@]host[:port][/ehlo-name][?tls=required|opportunistic|none]`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    encryption: Encryption,
    login: Option<(String, Secret)>,
    /// How it introduces itself.
    hello: Option<String>,
}

impl Server {
    /// The error says what is wrong with the address, and never has the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let host = match url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(host) if !host.to_string().is_empty() => host.to_string(),
            _ => return Err("it names no host".to_owned()),
        };
        let tls = url.query_pairs().find(|(name, _)| name == "tls");
        let tls = tls.map(|(_, value)| value.into_owned());
        // The ports are those that such addresses always meant.
        let (encryption, port) = match (url.scheme(), tls.as_deref()) {
            ("smtps", None | Some("required")) => (Encryption::Whole, 465),
            ("smtp", None) => (Encryption::Offered, 25),
            ("smtp", Some("opportunistic")) => (Encryption::Offered, 587),
            ("smtp", Some("required")) => (Encryption::Required, 587),
            ("smtp", Some("none")) => (Encryption::Never, 25),
            ("smtp" | "smtps", Some(other)) => {
                return Err(format!(
                    "`tls={other}` is none of `required`, `opportunistic` and `none`"
                ));
            }
            (scheme, _) => return Err(format!("`{scheme}:` is neither `smtp:` nor `smtps:`")),
        };
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(std::borrow::Cow::into_owned)
                .map_err(|_| "its user or password is not UTF-8".to_owned())
        };
        let login = match url.password() {
            Some(password) => Some((decoded(url.username())?, Secret::new(decoded(password)?))),
            None => None,
        };
        let hello = url.path().trim_matches('/');
        Ok(Self {
            host,
            port: url.port().unwrap_or(port),
            encryption,
            login,
            hello: Some(hello.to_owned()).filter(|name| !name.is_empty()),
        })
    }

    fn transport(
        &self,
        config: &Config,
        settings: &Settings,
        verify: bool,
    ) -> Result<Transport, NotSent> {
        let parameters = || -> Result<TlsParameters, NotSent> {
            let unusable = |error: lettre::transport::smtp::Error| {
                NotSent::lasting(format!("TLS to the mail server: {}", words(&error)))
            };
            let mut builder = TlsParameters::builder(self.host.clone());
            if let Some(pem) = &settings.authorities {
                let authority = Certificate::from_pem(pem.as_bytes()).map_err(unusable)?;
                builder = builder.add_root_certificate(authority);
            }
            let builder = builder.dangerous_accept_invalid_certs(!verify);
            builder.build().map_err(unusable)
        };
        let tls = match (self.encryption, &self.login) {
            (Encryption::Whole, _) => Tls::Wrapper(parameters()?),
            (Encryption::Required, _) | (Encryption::Offered, Some(_)) => {
                Tls::Required(parameters()?)
            }
            (Encryption::Offered, None) => Tls::Opportunistic(parameters()?),
            (Encryption::Never, _) => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let Some((user, password)) = &self.login {
            let password = password.expose().to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        if let Some(name) = self.hello(config) {
            builder = builder.hello_name(ClientId::Domain(name));
        }
        Ok(builder.build())
    }

    /// Strict servers refuse a machine's short name: unless one is given, it is the portal's, if that is a full one.
    fn hello(&self, config: &Config) -> Option<String> {
        let public = config
            .public_url
            .host_str()
            .filter(|host| host.contains('.') && matches!(Host::parse(host), Ok(Host::Domain(_))));
        self.hello.clone().or(public.map(ToOwned::to_owned))
    }
}

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// A way to the mail server.
pub(super) struct Connection {
    pub(super) transport: Transport,
    /// Why the server's certificate, which is used nevertheless, cannot be verified.
    pub(super) unverified: Option<String>,
}

/// Makes the transport. Where an unverifiable certificate may be taken, the connection is tried first.
pub(super) async fn connect(config: &Config, settings: &Settings) -> Result<Connection, NotSent> {
    let server = Server::parse(settings.url.expose())
        .map_err(|why| NotSent::lasting(format!("SMTP_URL: {why}")))?;
    let transport = server.transport(config, settings, true)?;
    let may_be_unverified = server.encryption == Encryption::Offered && server.login.is_none();
    let unverified = match may_be_unverified {
        true => match transport.test_connection().await {
            Err(error) if is_certificate(&error) => Some(words(&error)),
            _ => None,
        },
        false => None,
    };
    let transport = match unverified {
        Some(_) => server.transport(config, settings, false)?,
        None => transport,
    };
    Ok(Connection {
        transport,
        unverified,
    })
}

/// Whether the server's certificate was not good enough.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = |error: &rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref());
        if error.downcast_ref().or(inner).is_some_and(refused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Encryption, u16) {
        let server = Server::parse(text).unwrap();
        (server.encryption, server.port)
    }

    #[test]
    fn addresses_of_mail_servers() {
        use Encryption::{Never, Offered, Required, Whole};
        for (text, expected) in [
            ("smtp://localhost", (Offered, 25)),
            ("smtp://u:p@mail.example.org:2525", (Offered, 2525)),
            ("smtp://mail.example.org?tls=opportunistic", (Offered, 587)),
            ("smtp://u:p@mail.example.org?tls=required", (Required, 587)),
            ("smtp://u:p@mail.example.org?tls=none", (Never, 25)),
            ("smtps://u:p@mail.example.org", (Whole, 465)),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
        let server = Server::parse("smtp://a%40b:p%2Fq@[::1]:2525/portal.example.org").unwrap();
        let (user, password) = server.login.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("a@b", "p/q"));
        assert_eq!((server.host.as_str(), server.port), ("::1", 2525));
        assert_eq!(server.hello.as_deref(), Some("portal.example.org"));
        for bad in [
            "mail.example.org",
            "http://mail.example.org",
            "smtp://mail.example.org?tls=maybe",
            "smtps://mail.example.org?tls=none",
            "smtp:",
        ] {
            assert!(Server::parse(bad).is_err(), "{bad}");
        }
    }
}
