//! Files with a password or a key.
//!
//! Takes a path; gives what is in it, or why not, in words with a remedy and without the content. Invariant: a file that
//! others may read is refused. Blocks. Worst case: [`REPORT_SECRET_BYTES_MAX`] are read.
//!
//! [`REPORT_SECRET_BYTES_MAX`]: crate::limits::REPORT_SECRET_BYTES_MAX

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::options::Secret;
use crate::limits::REPORT_SECRET_BYTES_MAX;
use crate::state_file;

/// Why a secret cannot be had. The remedy is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's answer.
        reason: String,
    },
    /// Others may read it.
    #[error("{0} may be read by others; run: chmod 600 {0}")]
    Exposed(String),
    /// There is nothing in it that could be one.
    #[error("{path} holds no {what}")]
    Unusable {
        /// The file.
        path: String,
        /// What was expected.
        what: &'static str,
    },
}

/// The one line of a file that is its owner's alone.
pub(super) fn read_secret(path: &Path, what: &'static str) -> Result<Secret, SecretError> {
    let shown = || path.display().to_string();
    let unreadable = |reason: String| SecretError::Unreadable {
        path: shown(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(SecretError::Exposed(shown()));
    }
    let text = read_text(path)?;
    let line = text.trim();
    if line.is_empty() || line.contains(['\n', '\r', '\0']) {
        return Err(SecretError::Unusable {
            path: shown(),
            what,
        });
    }
    Ok(Secret::new(line.to_owned()))
}

/// A file that anybody may read.
pub(super) fn read_text(path: &Path) -> Result<String, SecretError> {
    let unreadable = |reason: String| SecretError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let read = state_file::read_up_to(path, REPORT_SECRET_BYTES_MAX);
    let bytes = match read.map_err(|error| unreadable(error.to_string()))? {
        None => return Err(unreadable("there is no such file".to_owned())),
        Some(bytes) if bytes.len() as u64 > REPORT_SECRET_BYTES_MAX => {
            return Err(unreadable("it is too large".to_owned()));
        }
        Some(bytes) => bytes,
    };
    String::from_utf8(bytes).map_err(|_| unreadable("it is no text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_one_line_and_shown_nowhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("password");
        let read = || read_secret(&path, "password");
        assert!(matches!(read(), Err(SecretError::Unreadable { .. })));
        std::fs::write(&path, "hunter2\n").expect("ours");
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        mode(0o640).expect("ours");
        let error = read().expect_err("others may read it").to_string();
        assert!(
            error.contains("chmod 600") && !error.contains("hunter2"),
            "{error}"
        );
        mode(0o600).expect("ours");
        let secret = read().expect("readable");
        assert_eq!(secret.reveal(), "hunter2");
        assert_eq!(format!("{secret:?}"), "Secret");
        for unusable in ["", "\n\n", "two\nlines"] {
            std::fs::write(&path, unusable).expect("ours");
            assert!(
                matches!(read(), Err(SecretError::Unusable { .. })),
                "{unusable:?}"
            );
        }
    }
}
