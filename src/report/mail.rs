//! Handing a report to a mail server (SMTP): one connection, one mail, every step under a deadline.
//!
//! Takes options, a password and a message; gives the server's answer, or at which step it went wrong, with a remedy.
//! Invariants: nothing but greetings goes over a connection before it is encrypted, unless the configuration says that it
//! may; a certificate is always checked; the password is in no error. A mail counts as sent with the server's 250 to its
//! whole text. Deliberately absent: trying again (`spool`). Cancel safety: a mail that was handed over just before may have
//! been taken.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

use super::numbers::shown;
use super::options::{Encryption, ReportOptions, Secret};
use crate::limits::{MAIL_DATA_DEADLINE, MAIL_STEP_DEADLINE};

/// Characters of a server's answer that are shown.
const ANSWER_CHARS_MAX: usize = 300;

/// At which step it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailStep {
    /// Reaching the server and being greeted.
    Connect,
    /// Encrypting.
    Encrypt,
    /// Logging in.
    Login,
    /// Handing the mail over.
    Send,
}

/// Why a mail was not sent. The remedy is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Nobody answers there.
    #[error(
        "the mail server {server} could not be reached: {reason}. Check smtp_host, smtp_port and smtp_encryption"
    )]
    Unreachable {
        /// Host and port.
        server: String,
        /// The system's answer.
        reason: String,
    },
    /// It answers too slowly, or not at all.
    #[error("the mail server {server} did not answer within {deadline_s} s ({step:?})")]
    Timeout {
        /// Host and port.
        server: String,
        /// When.
        step: MailStep,
        /// How long it had.
        deadline_s: u64,
    },
    /// It offers no encryption.
    #[error(
        "the mail server {server} offers no STARTTLS, and nothing is sent in plain text. Check smtp_port, or set smtp_encryption = \"tls\""
    )]
    NoStarttls {
        /// Host and port.
        server: String,
    },
    /// Its certificate is not believed, or it speaks no TLS.
    #[error(
        "the mail server {server} cannot be trusted: {reason}. If it is your own, name the certificate of who vouches for it in ca_file; smtp_host must be the name in its certificate"
    )]
    Certificate {
        /// Host and port.
        server: String,
        /// Why.
        reason: String,
    },
    /// The certificates of `ca_file` cannot be used.
    #[error("ca_file holds no certificates (PEM): {0}")]
    Authority(String),
    /// It does not let us in.
    #[error(
        "the mail server {server} refused the login of smtp_user: {answer}. Check smtp_user and the password"
    )]
    Login {
        /// Host and port.
        server: String,
        /// What it said.
        answer: String,
    },
    /// It does not take the mail.
    #[error("the mail server {server} did not take the mail: {answer}")]
    Refused {
        /// Host and port.
        server: String,
        /// What it said.
        answer: String,
    },
    /// The connection broke, or it said what cannot be understood.
    #[error("the connection with the mail server {server} broke ({step:?}): {reason}")]
    Broken {
        /// Host and port.
        server: String,
        /// When.
        step: MailStep,
        /// What happened.
        reason: String,
    },
}

/// What a mail is sent with.
#[derive(Debug)]
pub(super) struct MailServer<'m> {
    pub(super) options: &'m ReportOptions,
    pub(super) password: Option<Secret>,
    /// Certificates of those who may vouch for it besides (PEM).
    pub(super) authorities: Option<String>,
}

impl MailServer<'_> {
    /// Hands the mail over; gives the server's answer.
    pub(super) async fn send(&self, message: &Message) -> Result<String, MailError> {
        let mut connection = self.connect().await?;
        let sent = self.hand_over(&mut connection, message).await;
        // It has answered, or it will not: either way a goodbye is all that is left, and no reason to fail.
        drop(timeout(Duration::from_secs(2), connection.abort()).await);
        sent
    }

    /// Goes as far as it goes without a mail; gives where the server is.
    pub(super) async fn greet(&self) -> Result<String, MailError> {
        let mut connection = self.connect().await?;
        let let_in = self.log_in(&mut connection).await;
        drop(timeout(Duration::from_secs(2), connection.abort()).await);
        let_in.map(|()| self.server())
    }

    fn server(&self) -> String {
        let host = self.options.smtp_host.as_deref().unwrap_or_default();
        format!("{host}:{}", self.options.port())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        let host = self.options.smtp_host.clone().unwrap_or_default();
        let place = (host.as_str(), self.options.port());
        let name = ClientId::default();
        let encryption = self.options.smtp_encryption;
        let tls = match encryption {
            Encryption::None => None,
            Encryption::Starttls | Encryption::Tls => Some(self.tls(&host)?),
        };
        let at_once = tls.clone().filter(|_| encryption == Encryption::Tls);
        let connecting = AsyncSmtpConnection::connect_tokio1(
            place,
            Some(MAIL_STEP_DEADLINE),
            &name,
            at_once,
            None,
        );
        let mut connection = self
            .within(MailStep::Connect, MAIL_STEP_DEADLINE, connecting)
            .await?;
        if let Some(tls) = tls.filter(|_| encryption == Encryption::Starttls) {
            if !connection.can_starttls() {
                return Err(MailError::NoStarttls {
                    server: self.server(),
                });
            }
            let encrypting = connection.starttls(tls, &name);
            self.within(MailStep::Encrypt, MAIL_STEP_DEADLINE, encrypting)
                .await?;
        }
        Ok(connection)
    }

    async fn log_in(&self, connection: &mut AsyncSmtpConnection) -> Result<(), MailError> {
        if let (Some(user), Some(password)) = (&self.options.smtp_user, &self.password) {
            let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
            let login = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials);
            self.within(MailStep::Login, MAIL_STEP_DEADLINE, login)
                .await?;
        }
        Ok(())
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
    ) -> Result<String, MailError> {
        self.log_in(connection).await?;
        let bytes = message.formatted();
        let sending = connection.send(message.envelope(), &bytes);
        let answer = self
            .within(MailStep::Send, MAIL_DATA_DEADLINE, sending)
            .await?;
        let text: Vec<&str> = answer.message().collect();
        let answer = format!("{} {}", answer.code(), text.join(" "));
        Ok(shown(&answer, ANSWER_CHARS_MAX))
    }

    fn tls(&self, host: &str) -> Result<TlsParameters, MailError> {
        let mut builder = TlsParameters::builder(host.to_owned())
            .certificate_store(CertificateStore::WebpkiRoots);
        if let Some(authorities) = &self.authorities {
            let certificate = Certificate::from_pem(authorities.as_bytes());
            let certificate = certificate.map_err(|error| MailError::Authority(chain(&error)))?;
            builder = builder.add_root_certificate(certificate);
        }
        let built = builder.build_rustls();
        built.map_err(|error| MailError::Authority(chain(&error)))
    }

    async fn within<T>(
        &self,
        step: MailStep,
        deadline: Duration,
        waited_for: impl Future<Output = Result<T, SmtpError>>,
    ) -> Result<T, MailError> {
        match timeout(deadline, waited_for).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) if error.is_timeout() => Err(self.too_late(step, deadline)),
            Ok(Err(error)) => Err(self.explained(step, &error)),
            Err(_) => Err(self.too_late(step, deadline)),
        }
    }

    fn too_late(&self, step: MailStep, deadline: Duration) -> MailError {
        MailError::Timeout {
            server: self.server(),
            step,
            deadline_s: deadline.as_secs(),
        }
    }

    fn explained(&self, step: MailStep, error: &SmtpError) -> MailError {
        let (server, reason) = (self.server(), chain(error));
        if is_about_tls(error) {
            return MailError::Certificate { server, reason };
        }
        match (step, error.status()) {
            (MailStep::Login, _) if !is_of_the_network(error) => MailError::Login {
                server,
                answer: reason,
            },
            (_, Some(_)) => MailError::Refused {
                server,
                answer: reason,
            },
            (MailStep::Connect, None) => MailError::Unreachable { server, reason },
            (_, None) => MailError::Broken {
                server,
                step,
                reason,
            },
        }
    }
}

/// All that an error says, its causes included, once each.
fn chain(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = deeper.source();
    }
    shown(text.trim_end_matches('.'), ANSWER_CHARS_MAX)
}

fn causes<'e>(error: &'e SmtpError) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (**cause).source())
}

fn is_about_tls(error: &SmtpError) -> bool {
    error.is_tls()
        || causes(error).any(|cause| {
            // What rustls says comes wrapped into an error of input or output.
            let wrapped = cause.downcast_ref::<std::io::Error>();
            let inner = wrapped.and_then(std::io::Error::get_ref);
            cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
        })
}

fn is_of_the_network(error: &SmtpError) -> bool {
    causes(error).any(|cause| cause.is::<std::io::Error>())
}
