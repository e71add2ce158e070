//! `constellation init`.

use std::io::Write;

use super::arguments::{Global, InitArguments};
use super::exit::{Exit, Failure};
use crate::config::sample;

pub(super) fn init(global: &Global, arguments: &InitArguments) -> Result<Exit, Failure> {
    if arguments.stdout {
        std::io::stdout().write_all(sample().as_bytes())?;
        return Ok(Exit::Done);
    }
    let (path, _) = global.config_file()?;
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::usage(format!(
                "{} is there already: it is left as it is; see the defaults with `init --stdout`",
                path.display()
            ))
        } else {
            Failure::local(format!("cannot write {}: {error}", path.display()))
        }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    file.write_all(sample().as_bytes()).map_err(failed)?;
    outln!("{}", path.display());
    Ok(Exit::Done)
}
