//! A report as a mail: two alternatives, text and HTML, with the headers of a machine's letter.
//!
//! Takes a letter, addresses, a name and a time; gives an envelope and the bytes of the message. Pure. The same report has
//! the same `Message-ID` whenever it is sent, so that a mail that goes twice can be told from two.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};

use super::html::html;
use super::letter::Letter;
use super::text::text;

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The page.
    #[error("the page cannot be made: {0}")]
    Page(#[from] askama::Error),
    /// The headers.
    #[error("the mail cannot be made: {0}")]
    Headers(#[from] lettre::error::Error),
}

/// `Auto-Submitted: auto-generated` (RFC 3834): nobody's holiday notice answers it.
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The mail. `id` names the report; `now` is Unix seconds.
pub(super) fn message(
    letter: &Letter<'_>,
    id: &str,
    from: Mailbox,
    to: Mailbox,
    now: u64,
) -> Result<Message, MessageError> {
    let message_id = message_id(id, &letter.summary.station.peer_id, &from.email);
    let message = Message::builder()
        .from(from)
        .to(to)
        .subject(letter.subject())
        .date(UNIX_EPOCH + Duration::from_secs(now))
        .message_id(Some(message_id))
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(
            text(letter),
            html(letter)?,
        ))?;
    Ok(message)
}

fn message_id(id: &str, station: &str, from: &Address) -> String {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.take(80).collect()
    };
    format!(
        "<{}.{}.report@{}>",
        plain(id),
        plain(station),
        from.domain()
    )
}
