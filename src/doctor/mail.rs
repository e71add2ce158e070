//! The mail server: whether it is reached, believed, and lets the station in. Nothing is sent.

use super::remedy::{quoted, toml_text};
use super::{CheckName, Finding, Remedy, Scene};
use crate::report::{MailError, SecretError, SendError, try_mail_server};

pub(super) async fn check(scene: &Scene<'_>) -> Finding {
    let name = CheckName::Mail;
    let options = &scene.config.report;
    if options.smtp_host.is_none() {
        return name.ok("none: reports are not mailed");
    }
    let error = match try_mail_server(options).await {
        Ok(server) => {
            let how = match options.smtp_user {
                Some(_) => "lets us in",
                None => "greets us",
            };
            return name.ok(format!("{server} {how}"));
        }
        Err(error) => error,
    };
    let remedy = match &error {
        SendError::Secret(SecretError::Exposed(path)) => {
            Remedy::command(format!("chmod 600 {}", quoted(path)))
        }
        SendError::Mail(MailError::NoStarttls { .. }) => {
            scene.setting("report", "smtp_encryption", toml_text("tls"))
        }
        SendError::Mail(MailError::Login { .. }) => {
            let file = options.password_file.as_deref();
            Remedy::words(match file {
                Some(file) => format!(
                    "write the password of smtp_user as the one line of {}",
                    file.display()
                ),
                None => {
                    "set CONSTELLATION_REPORT__PASSWORD to the password of smtp_user".to_owned()
                }
            })
        }
        SendError::Mail(MailError::Certificate { .. } | MailError::Authority(_)) => Remedy::words(
            "set smtp_host in [report] to the name in its certificate, and ca_file to the certificate of who vouches for it if \
             that is an authority of your own",
        ),
        SendError::Secret(error) => {
            Remedy::words(format!("make the file readable and right: {error}"))
        }
        _ => Remedy::words("start the mail server, or set smtp_host and smtp_port in [report]"),
    };
    name.problem(error.to_string(), remedy)
}
