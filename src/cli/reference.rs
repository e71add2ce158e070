//! `constellation completions` and `constellation man`: made from the words of the command line.

use std::io::Write;

use clap::CommandFactory;

use super::arguments::{Arguments, CompletionsArguments, ManArguments};
use super::exit::{Exit, Failure};

/// The name under which the program is called.
const PROGRAM: &str = "constellation";

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<Exit, Failure> {
    let mut written = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        PROGRAM,
        &mut written,
    );
    std::io::stdout().write_all(&written)?;
    Ok(Exit::Done)
}

/// One page on standard output, or all of them into a folder. Blocks.
pub(super) fn man(arguments: &ManArguments) -> Result<Exit, Failure> {
    let command = Arguments::command();
    let Some(folder) = &arguments.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        std::io::stdout().write_all(&page)?;
        return Ok(Exit::Done);
    };
    let failed = |error: std::io::Error| {
        Failure::local(format!("cannot write to {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    outln!("{}", folder.display());
    Ok(Exit::Done)
}
