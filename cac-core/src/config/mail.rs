//! Reading how mail is sent.

use lettre::message::Mailbox;

use super::reader::Reader;
use crate::mail;
use crate::pve::Secret;

pub(super) fn mail(r: &mut Reader<'_>) -> Option<mail::Settings> {
    let Some(url) = r.vars.get("SMTP_URL").map(ToOwned::to_owned) else {
        for name in ["MAIL_FROM", "MAIL_ADMIN", "SMTP_CA_FILE"] {
            if r.vars.get(name).is_some() {
                r.problem(name, "is of no use without SMTP_URL; set SMTP_URL too");
            }
        }
        return None;
    };
    if let Err(error) = mail::Server::parse(&url) {
        r.problem(
            "SMTP_URL",
            format!("must be like `smtp://user:password@mail.example.org:587`, `smtps://…` or `smtp://localhost:25` ({error})"),
        );
    }
    let authorities = r.vars.get("SMTP_CA_FILE").map(std::fs::read_to_string);
    let authorities = authorities.and_then(|read| match read {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Some(pem),
        Ok(_) => {
            r.problem("SMTP_CA_FILE", "must have certificates in PEM");
            None
        }
        Err(error) => {
            r.problem("SMTP_CA_FILE", format!("cannot be read: {error}"));
            None
        }
    });
    let shape = "an address such as `Portal <portal@example.org>`";
    let from = r.vars.get("MAIL_FROM").map(str::parse::<Mailbox>);
    let Some(Ok(from)) = from else {
        r.problem("MAIL_FROM", format!("must be {shape}; mail comes from it"));
        return None;
    };
    let mut admins = Vec::new();
    let text = r.text("MAIL_ADMIN", "");
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse() {
            Ok(admin) => admins.push(admin),
            Err(_) => r.problem(
                "MAIL_ADMIN",
                format!("must be a comma list of {shape}; `{part}` is none"),
            ),
        }
    }
    Some(mail::Settings {
        url: Secret::new(url),
        authorities,
        from,
        admins,
    })
}
