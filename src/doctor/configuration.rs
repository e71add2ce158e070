//! The configuration: whether it can be read, and which line or variable is wrong.

use super::remedy::{quoted, quoted_path};
use super::{CheckName, Finding, Remedy, Surroundings};
use crate::config::{Config, ConfigError};

pub(super) fn check(around: &Surroundings, loaded: Result<&Config, &ConfigError>) -> Finding {
    let name = CheckName::Configuration;
    let file = around.file.display();
    let error = match loaded {
        Ok(_) if around.file.exists() => return name.ok(format!("{file} is understood")),
        Ok(_) => return name.ok(format!("all defaults: {file} is not there")),
        Err(error) => error,
    };
    let path = quoted_path(&around.file);
    let remedy = match error {
        ConfigError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound && around.file_is_named =>
        {
            Remedy::own_command(&around.command, &["init"])
        }
        ConfigError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Remedy::command(format!("sudo chown \"$(id -un)\" {path}"))
        }
        ConfigError::Unreadable { .. } => Remedy::command(format!("mv {path} {path}.unreadable")),
        // The line stays to be read, and nothing else changes.
        ConfigError::Invalid {
            line: Some(line), ..
        } => Remedy::command(format!("sed -i '{line}s/^/#/' {path}")),
        // What no line shows by itself: a station that is its own home relay.
        ConfigError::Invalid { line: None, .. } => {
            Remedy::command(format!("sed -i 's/^ *home_relay/#&/' {path}"))
        }
        ConfigError::Variable { variable, .. } => {
            Remedy::command(format!("unset {}", quoted(variable)))
        }
    };
    let words: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    name.problem(words.join("\n"), remedy)
}
