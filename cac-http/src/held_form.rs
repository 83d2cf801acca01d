//! Forms that are held back until the password was given again. They go through the browser, sealed, and are sent again by it; the server
//! keeps nothing.

use cac_core::{Actor, Core, session};
use poem::http::StatusCode;

use crate::error::{ApiError, Result};
use crate::page;

/// What a form of a signed-in browser sent.
pub(crate) struct HeldForm {
    /// The id in the session's cookie, good or not.
    pub session: String,
    pub body: Vec<u8>,
}

impl HeldForm {
    /// The page that asks for the password and then sends the form to `target` again.
    pub(crate) fn confirmation(&self, core: &Core, target: &str, who: &Actor) -> Option<String> {
        let sealed = session::seal_form(core, &self.session, target, &self.body);
        let sealed = sealed.inspect_err(|error| tracing::error!(%error, "a form is lost"));
        let again = page::login::Again {
            to: target,
            form: &sealed.ok()?,
        };
        Some(page::login::confirm(who, &again, None, None))
    }
}

/// What the form sent that was held back for this session and target.
pub(crate) fn open(core: &Core, session: &str, target: &str, sealed: &str) -> Result<Vec<u8>> {
    session::open_form(core, session, target, sealed).ok_or_else(|| {
        let message = "This form was kept for another session or page. Go back to its page and send it again.";
        ApiError::new(StatusCode::BAD_REQUEST, message)
    })
}
