//! One report by one way: what a way needs is read, the report is made, handed over, and the answer told.
//!
//! Takes options, a letter and a way; gives a [`Delivery`], or why it did not go, with a remedy. Files are read off the
//! runtime, and every wait is under a deadline. Invariant: nothing that it tells holds a secret. Deliberately absent: when,
//! and trying again.

use std::path::PathBuf;

use constellation_event::UnverifiedEvent;
use serde::{Deserialize, Serialize};

use super::command::{CommandFailure, hand_over};
use super::html::html;
use super::letter::Letter;
use super::mail::{MailError, MailServer};
use super::message::{MessageError, message};
use super::note::{NoteError, keys, note};
use super::options::{Channel, ReportOptions};
use super::secrets::{SecretError, read_secret, read_text};
use crate::ingest::{Ingest, Lane, Origin, Verdict};
use crate::state_file;

/// What became of sending a report by one way. The shape of `report --send --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The way.
    pub channel: Channel,
    /// The answer, where it was taken.
    pub answer: Option<String>,
    /// Why it was not, and what to do.
    pub error: Option<String>,
    /// Whether nobody was there to take it.
    pub unreachable: bool,
}

impl Delivery {
    /// What became of it.
    pub(super) fn of(channel: Channel, sent: Result<String, SendError>) -> Self {
        let unreachable = matches!(
            &sent,
            Err(SendError::Mail(
                MailError::Unreachable { .. } | MailError::Timeout { .. }
            ))
        );
        let (answer, error) = match sent {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            channel,
            answer,
            error,
            unreachable,
        }
    }
}

/// Why a report did not go.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Password or certificates.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The mail itself.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The mail server.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The command.
    #[error(transparent)]
    Command(#[from] CommandFailure),
    /// The note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The file for the command.
    #[error("cannot write the page for the command: {0}")]
    File(#[from] std::io::Error),
    /// It is not configured.
    #[error(
        "nothing is configured to send it by: set smtp_host, command or note_key_file in [report]"
    )]
    NotConfigured,
}

/// Sends reports.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    /// The door to our own store, for notes.
    pub(super) ingest: Ingest,
    /// Where files for the command stand meanwhile.
    pub(super) temporary: PathBuf,
}

impl Outlet {
    /// Sends a letter; `id` names the report, `now` is Unix seconds. Gives the answer.
    ///
    /// Cancel safety: it may have been taken.
    pub(super) async fn send(
        &self,
        options: &ReportOptions,
        letter: &Letter<'_>,
        channel: Channel,
        id: &str,
        now: u64,
    ) -> Result<String, SendError> {
        match channel {
            Channel::Mail => mail(options, letter, id, now).await,
            Channel::Command => self.command(options, letter, id).await,
            Channel::Note => self.note(options, letter, now).await,
        }
    }

    async fn command(
        &self,
        options: &ReportOptions,
        letter: &Letter<'_>,
        id: &str,
    ) -> Result<String, SendError> {
        let recipient = options.to.as_ref().ok_or(SendError::NotConfigured)?;
        let page = html(letter).map_err(MessageError::from)?;
        let file = PageFile::write(self.temporary.join(format!("report-{id}.html")), page).await?;
        let (recipient, path) = (recipient.email.to_string(), file.0.display().to_string());
        let subject = letter.subject();
        hand_over(&options.command, &recipient, &path, &subject).await?;
        Ok("the command ended with exit code 0".to_owned())
    }

    async fn note(
        &self,
        options: &ReportOptions,
        letter: &Letter<'_>,
        now: u64,
    ) -> Result<String, SendError> {
        let path = options.note_key_file.clone();
        let path = path.ok_or(SendError::NotConfigured)?;
        let keys = blocking(move || keys(&path)).await?;
        let expires_at = now.saturating_add(options.note_expires.as_secs());
        let event = note(letter, &keys, now, expires_at)?;
        let unverified = UnverifiedEvent::from_event(&event);
        let source = self.ingest.source(Lane::Prompt);
        let submitted = self
            .ingest
            .submit(&source, Origin::Import, vec![unverified]);
        let refused = |why: String| SendError::from(NoteError::Refused(why));
        match submitted
            .await
            .map_err(|error| refused(error.to_string()))?
            .first()
        {
            Some(Verdict::Stored | Verdict::Duplicate) => {
                Ok(format!("stored as {}", event.id.to_hex()))
            }
            Some(other) => Err(refused(format!("{other:?}"))),
            None => Err(refused("nobody ruled on it".to_owned())),
        }
    }
}

/// The mail server, with the password and the certificates that the configuration names.
async fn mail_server(options: &ReportOptions) -> Result<MailServer<'_>, SecretError> {
    let (password_file, ca_file) = (options.password_file.clone(), options.ca_file.clone());
    let (password, authorities) = blocking(move || {
        let password = password_file.map(|path| read_secret(&path, "password"));
        let authorities = ca_file.map(|path| read_text(&path));
        Ok::<_, SecretError>((password.transpose()?, authorities.transpose()?))
    })
    .await?;
    Ok(MailServer {
        options,
        password: password.or_else(|| options.password.clone()),
        authorities,
    })
}

/// Whether the mail server would take a report: it is reached, believed and lets us in. Sends nothing. Gives where it is.
///
/// Cancel safe.
///
/// # Errors
/// [`SendError`], with what to do.
pub async fn try_mail_server(options: &ReportOptions) -> Result<String, SendError> {
    if options.smtp_host.is_none() {
        return Err(SendError::NotConfigured);
    }
    Ok(mail_server(options).await?.greet().await?)
}

async fn mail(
    options: &ReportOptions,
    letter: &Letter<'_>,
    id: &str,
    now: u64,
) -> Result<String, SendError> {
    let (from, to) = (options.sender(), options.to.clone());
    let (from, to) = from.zip(to).ok_or(SendError::NotConfigured)?;
    let server = mail_server(options).await?;
    let message = message(letter, id, from, to, now)?;
    Ok(Box::pin(server.send(&message)).await?)
}

/// A page on disk, removed when it is no longer needed.
struct PageFile(PathBuf);

impl PageFile {
    async fn write(path: PathBuf, page: String) -> std::io::Result<Self> {
        let file = Self(path.clone());
        blocking(move || state_file::replace(&path, page.as_bytes())).await?;
        Ok(file)
    }
}

impl Drop for PageFile {
    fn drop(&mut self) {
        // Here, not off the runtime: it goes also when whoever waits goes away, and one name is soon removed.
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the page for the command was gone already");
        }
    }
}

/// Off the runtime. What panics there panics here.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        // The runtime is being shut down, and nobody is there to hear it.
        Err(_) => std::future::pending().await,
    }
}
