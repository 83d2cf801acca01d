//! Tickets, CSRF tokens and API tokens: made, signed and verified. Not what the caller may do (see `rights`).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

use crate::answer::Refusal;
use crate::rights::Who;
use crate::world::{World, now};

/// Life of a ticket in seconds.
const LIFETIME: u64 = 7200;
/// How far into the future a ticket may lie, in seconds.
const CLOCK_SKEW: u64 = 300;

/// What a request carries to prove who sends it.
#[derive(Debug, Default)]
pub(crate) struct Credentials<'a> {
    pub(crate) authorization: Option<&'a str>,
    pub(crate) cookie: Option<&'a str>,
    pub(crate) csrf: Option<&'a str>,
}

fn sign(world: &World, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(world.secret.as_bytes())
        .expect("a HMAC key may have any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A signature of 256 bytes, as long as that of a 2048 bit key: cookies then have their real size.
fn long_signature(world: &World, text: &str) -> String {
    let bytes: Vec<u8> = (0..8)
        .flat_map(|part| sign(world, &format!("ticket{part}:{text}")))
        .collect();
    STANDARD.encode(bytes)
}

/// A ticket for a user (or a challenge `!tfa!…`) that starts to live at the given time.
pub(crate) fn ticket_at(world: &World, name: &str, time: u64) -> String {
    let plain = format!("PVE:{name}:{time:08X}");
    let signature = long_signature(world, &plain);
    format!("{plain}::{signature}")
}

pub(crate) fn ticket(world: &World, name: &str) -> String {
    ticket_at(world, name, now())
}

/// The name in a ticket whose signature and age are good.
pub(crate) fn verify_ticket(world: &World, ticket: &str) -> Option<String> {
    let (plain, signature) = ticket.split_once("::")?;
    let (head, time) = plain.rsplit_once(':')?;
    let name = head.strip_prefix("PVE:")?;
    let made = u64::from_str_radix(time, 16).ok()?;
    let age_is_good = made <= now() + CLOCK_SKEW && now() < made + LIFETIME;
    (age_is_good && long_signature(world, plain) == signature).then(|| name.to_owned())
}

pub(crate) fn csrf_token(world: &World, user: &str) -> String {
    let time = format!("{:08X}", now());
    let signature = STANDARD_NO_PAD.encode(sign(world, &format!("csrf:{time}:{user}")));
    format!("{time}:{signature}")
}

fn csrf_is_good(world: &World, user: &str, token: &str) -> bool {
    let Some((time, signature)) = token.split_once(':') else {
        return false;
    };
    let fresh = u64::from_str_radix(time, 16)
        .is_ok_and(|made| made <= now() + CLOCK_SKEW && now() < made + LIFETIME);
    let expected = STANDARD_NO_PAD.encode(sign(world, &format!("csrf:{time}:{user}")));
    fresh && signature == expected
}

const FAILED: Refusal = Refusal::Unauthenticated("Authentication failed!");

/// Finds the caller of a request; `Ok(None)` when nothing was sent.
pub(crate) fn caller(
    world: &World,
    sent: &Credentials<'_>,
    needs_csrf: bool,
) -> Result<Option<Who>, Refusal> {
    if let Some(token) = sent
        .authorization
        .and_then(|header| header.strip_prefix("PVEAPIToken"))
        .filter(|rest| rest.starts_with(['=', ' ']))
    {
        return verify_token(world, &token[1..]).map(Some);
    }
    let from_header = sent
        .authorization
        .and_then(|header| header.strip_prefix("PVEAuthCookie="));
    let Some(ticket) = from_header.or_else(|| sent.cookie.and_then(cookie_ticket)) else {
        return Ok(None);
    };
    let ticket = percent_decode_str(ticket).decode_utf8_lossy();
    let name = verify_ticket(world, &ticket).ok_or(FAILED)?;
    if !world.users.get(&name).is_some_and(|user| user.is_active()) {
        return Err(FAILED);
    }
    if needs_csrf
        && !sent
            .csrf
            .is_some_and(|csrf| csrf_is_good(world, &name, csrf))
    {
        let reason = "Permission denied - invalid csrf token";
        return Err(Refusal::Unauthenticated(reason));
    }
    Ok(Some(Who::user(&name)))
}

fn cookie_ticket(header: &str) -> Option<&str> {
    header
        .split(';')
        .find_map(|pair| pair.trim().strip_prefix("PVEAuthCookie="))
        .filter(|value| !value.is_empty())
}

fn verify_token(world: &World, text: &str) -> Result<Who, Refusal> {
    let found = text.split_once('=').and_then(|(id, secret)| {
        let who = Who::parse(id);
        let user = world.users.get(&who.user).filter(|user| user.is_active())?;
        let token = user.tokens.get(who.token.as_ref()?)?;
        let alive = token.expire == 0 || token.expire > now();
        (alive && token.secret == secret).then_some(who)
    });
    found.ok_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_is_bound_to_name_and_age() {
        let world = World::new(&["pve1".to_owned()], "secret");
        let good = ticket(&world, "root@pam");
        assert_eq!(verify_ticket(&world, &good).as_deref(), Some("root@pam"));
        let old = ticket_at(&world, "root@pam", now() - LIFETIME - 1);
        assert_eq!(verify_ticket(&world, &old), None);
        let foreign = good.replace("root@pam", "bob@pve");
        assert_eq!(verify_ticket(&world, &foreign), None);
    }
}
