//! `constellation init`.

use std::io::Write;

use super::arguments::{Global, InitArguments};
use super::exit::{Exit, Failure};
use crate::config::{reference_page, sample};
use crate::daemon::accept_constellation;
use crate::random::Random;

pub(super) async fn init(global: &Global, arguments: &InitArguments) -> Result<Exit, Failure> {
    if arguments.stdout {
        std::io::stdout().write_all(sample().as_bytes())?;
        return Ok(Exit::Done);
    }
    if arguments.reference {
        std::io::stdout().write_all(reference_page().as_bytes())?;
        return Ok(Exit::Done);
    }
    if arguments.accept_constellation {
        return accept(global).await;
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

/// The captain's confirmation (D16). A running station takes it over at its next start.
async fn accept(global: &Global) -> Result<Exit, Failure> {
    let config = global.load_config()?;
    let directory = global.data_directory()?;
    directory.prepare().map_err(|(path, error)| {
        Failure::local(format!("cannot use {}: {error}", path.display()))
    })?;
    let id = accept_constellation(&directory, &config, Random::system()).await?;
    outln!(
        "This station belongs to the constellation {id}. A running one takes it over when it is restarted."
    );
    Ok(Exit::Done)
}
