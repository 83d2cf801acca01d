//! Mail: texts from `templates/mail/`, sent by SMTP. When it is sent, and again, is `job/account_mail.rs`.

use std::sync::LazyLock;
use std::time::Duration;

use lettre::message::header::MessageId;
use lettre::message::{Mailbox, MultiPart};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use crate::pve::Secret;
use crate::{Core, Error, Result};

const TIMEOUT: Duration = Duration::from_secs(30);

/// How mail is sent, and to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `SMTP_URL`; may hold a password.
    pub url: Secret,
    pub from: Mailbox,
    /// `MAIL_ADMIN`
    pub admins: Vec<Mailbox>,
}

/// A mail that is to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    pub to: Vec<Mailbox>,
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
        "asked.txt",
        "asked.html",
        "declined.txt",
        "declined.html",
        "approved.txt",
        "approved.html",
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

/// Sends a mail now.
pub async fn send(core: &Core, mail: &Mail) -> Result<(), NotSent> {
    let lasting = |text: String| NotSent {
        text,
        passing: false,
    };
    let Some(settings) = &core.config.mail else {
        return Err(lasting(
            "No mail can be sent: set SMTP_URL and MAIL_FROM.".to_owned(),
        ));
    };
    let domain = settings.from.email.domain();
    let mut message = Message::builder()
        .from(settings.from.clone())
        .subject(&mail.subject)
        .header(MessageId::from(format!("<{}@{domain}>", mail.id)));
    for to in &mail.to {
        message = message.to(to.clone());
    }
    let message = message
        .multipart(MultiPart::alternative_plain_html(
            mail.text.clone(),
            mail.html.clone(),
        ))
        .map_err(|error| lasting(error.to_string()))?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose())
        .map_err(|error| lasting(format!("SMTP_URL: {error}")))?
        .timeout(Some(TIMEOUT))
        .build();
    match transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) => Err(NotSent {
            passing: !error.is_permanent(),
            text: format!("The mail server has not taken it: {}", words(&error)),
        }),
    }
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
    let mail = Mail {
        to: settings.admins.clone(),
        subject: "Test of Create-a-Container".to_owned(),
        text,
        html,
        id: format!("test-{}", &crate::secret::random()[..16]),
    };
    send(core, &mail)
        .await
        .map_err(|error| Error::Upstream(error.text))?;
    Ok(settings
        .admins
        .iter()
        .map(|to| to.email.to_string())
        .collect())
}
