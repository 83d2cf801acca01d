//! Mail: texts from `templates/mail/`, sent by SMTP. When it is sent, and again, is `job/account_mail.rs`.

use std::sync::LazyLock;
use std::time::Duration;

use lettre::message::header::MessageId;
use lettre::message::{Mailbox, MultiPart};
use lettre::{AsyncTransport as _, Message};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use crate::pve::Secret;
use crate::{Config, Core, Error, Result};

mod smtp;

pub use smtp::Server;

/// How mail is sent, and to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `SMTP_URL`; may hold a password.
    pub url: Secret,
    /// `SMTP_CA_FILE`: certificates in PEM that are trusted beside the system's.
    pub authorities: Option<String>,
    pub from: Mailbox,
    /// `MAIL_ADMIN`
    pub admins: Vec<Mailbox>,
}

/// A mail that is to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    /// One: of several, one that bounces would keep the mail from all others.
    pub to: Mailbox,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// The same for the same mail, so that one that comes twice is known as one.
    pub id: String,
}

/// Why a mail was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct NotSent {
    pub text: String,
    /// Whether trying again may help.
    pub passing: bool,
}

impl NotSent {
    fn lasting(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            passing: false,
        }
    }

    fn passing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            passing: true,
        }
    }

    fn refused(error: &lettre::transport::smtp::Error) -> Self {
        Self {
            passing: !error.is_permanent(),
            text: format!("The mail server has not taken it: {}", words(error)),
        }
    }
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    macro_rules! add {
        ($($name:literal),+) => {$(
            templates
                .add_template($name, include_str!(concat!("../templates/mail/", $name)))
                .expect("the embedded templates are tested");
        )+};
    }
    add!(
        "confirm.txt",
        "confirm.html",
        "asked.txt",
        "asked.html",
        "declined.txt",
        "declined.html",
        "approved.txt",
        "approved.html",
        "token_created.txt",
        "token_created.html",
        "token_expires.txt",
        "token_expires.html",
        "new_device.txt",
        "new_device.html",
        "test.txt",
        "test.html",
        "address.txt",
        "address.html"
    );
    templates
});

/// Text and HTML of a mail; in HTML everything is escaped.
pub fn render(name: &str, values: &serde_json::Value) -> Result<(String, String)> {
    let one = |ending: &str| {
        TEMPLATES
            .get_template(&format!("{name}.{ending}"))
            .and_then(|template| template.render(minijinja::Value::from(Serde(values))))
            .map_err(|error| Error::Internal(format!("mail {name}: {error}")))
    };
    Ok((one("txt")?, one("html")?))
}

/// Whether mail can be sent at all.
#[must_use]
pub fn on(core: &Core) -> bool {
    core.config.mail.is_some()
}

/// How long a mail server may take for one mail. The library's own limit is for connecting alone.
const LIMIT: Duration = Duration::from_secs(30);

/// What a mail server that says nothing is worth.
fn silent() -> NotSent {
    NotSent::passing(format!(
        "The mail server did not answer within {} s.",
        LIMIT.as_secs()
    ))
}

/// Sends a mail now.
pub async fn send(core: &Core, mail: &Mail) -> Result<(), NotSent> {
    let sent = tokio::time::timeout(LIMIT, send_at_once(core, mail)).await;
    sent.unwrap_or_else(|_| Err(silent()))
}

async fn send_at_once(core: &Core, mail: &Mail) -> Result<(), NotSent> {
    let Some(settings) = &core.config.mail else {
        return Err(NotSent::lasting(
            "No mail can be sent: set SMTP_URL and MAIL_FROM.",
        ));
    };
    let domain = settings.from.email.domain();
    let message = Message::builder()
        .from(settings.from.clone())
        .to(mail.to.clone())
        .subject(&mail.subject)
        .header(MessageId::from(format!("<{}@{domain}>", mail.id)))
        .multipart(MultiPart::alternative_plain_html(
            mail.text.clone(),
            mail.html.clone(),
        ))
        .map_err(|error| NotSent::lasting(error.to_string()))?;
    let connection = smtp::connect(&core.config, settings).await?;
    if let Some(why) = &connection.unverified {
        tracing::warn!(%why, "the mail server's certificate cannot be verified; no password is sent there");
    }
    match connection.transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) => Err(NotSent::refused(&error)),
    }
}

/// Tries the connection and the password; the warning that goes with it, if there is one.
pub async fn check(config: &Config, settings: &Settings) -> Result<Option<String>, NotSent> {
    let check = async {
        let connection = smtp::connect(config, settings).await?;
        match connection.transport.test_connection().await {
            Ok(true) => Ok(connection.unverified),
            Ok(false) => Err(NotSent::lasting("The mail server does not answer as one.")),
            Err(error) => Err(NotSent::refused(&error)),
        }
    };
    let checked = tokio::time::timeout(LIMIT, check).await;
    checked.unwrap_or_else(|_| Err(silent()))
}

/// The whole chain of causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let more = one.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = one.source();
    }
    text
}

/// A test mail to `MAIL_ADMIN`, sent now; to whom.
pub async fn test(core: &Core) -> Result<Vec<String>> {
    let Some(settings) = core
        .config
        .mail
        .as_ref()
        .filter(|mail| !mail.admins.is_empty())
    else {
        return Err(Error::invalid(
            "MAIL_ADMIN",
            "Set SMTP_URL, MAIL_FROM and MAIL_ADMIN, and start the portal again.",
        ));
    };
    let values = serde_json::json!({ "portal": core.config.public_url.as_str() });
    let (text, html) = render("test", &values)?;
    let id = format!("test-{}", &crate::secret::random()[..16]);
    let mut failed = Vec::new();
    for to in &settings.admins {
        let mail = Mail {
            to: to.clone(),
            subject: "Test of Create-a-Container".to_owned(),
            text: text.clone(),
            html: html.clone(),
            id: id.clone(),
        };
        if let Err(error) = send(core, &mail).await {
            failed.push(format!("{}: {error}", to.email));
        }
    }
    if !failed.is_empty() {
        return Err(Error::Upstream(failed.join(" ")));
    }
    Ok(settings
        .admins
        .iter()
        .map(|to| to.email.to_string())
        .collect())
}
