//! `constellation doctor`: what was found, a line each, and the remedies.

use super::access::environment;
use super::arguments::{Global, JsonArguments};
use super::exit::{Exit, Failure};
use super::terminal::{Style, Terminal};
use crate::config::Config;
use crate::doctor::{self, Finding, Surroundings, Verdict};
use crate::time::Clock;

pub(super) async fn doctor(global: &Global, arguments: &JsonArguments) -> Result<Exit, Failure> {
    let (file, file_is_named) = global.config_file()?;
    let loaded = Config::load(&file, file_is_named, environment());
    let around = Surroundings {
        file,
        file_is_named,
        directory: global.data_directory()?,
        command: own_words(global),
        home: std::env::var_os("HOME").map(Into::into),
        clock: Clock::system(),
    };
    let examined = doctor::examine(&around, loaded.as_ref());
    let found = tokio::select! {
        found = examined => found,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    if arguments.json {
        outln!("{}", serde_json::to_string(&found).map_err(Failure::local)?);
    } else {
        let terminal = Terminal::of_output();
        for finding in &found {
            outln!("{}", line(finding, &terminal));
        }
        outln!("{}", summary(&found));
    }
    let must_be_done = found.iter().any(|one| one.verdict == Verdict::Problem);
    Ok(if must_be_done {
        Exit::Partial
    } else {
        Exit::Done
    })
}

/// The words with which this program finds the same station again.
fn own_words(global: &Global) -> Vec<String> {
    let mut words = vec!["constellation".to_owned()];
    for (option, value) in [("--data", &global.data), ("--config", &global.config)] {
        if let Some(value) = value {
            words.extend([option.to_owned(), value.display().to_string()]);
        }
    }
    words
}

fn line(finding: &Finding, terminal: &Terminal) -> String {
    let (mark, plain, style) = match finding.verdict {
        Verdict::Ok => ("✓", "+", Style::Good),
        Verdict::Warning => ("!", "!", Style::Doubtful),
        Verdict::Problem => ("✗", "x", Style::Bad),
    };
    let mark = terminal.styled(terminal.sign(mark, plain), style);
    // What follows a first line stands below it.
    let seen = finding
        .seen
        .trim_end()
        .replace('\n', "\n                    ");
    let mut text = format!(
        "{mark} {:16}  {seen}",
        finding.check.label().replace('_', " ")
    );
    if let Some(remedy) = &finding.remedy {
        let arrow = terminal.sign("→", "->");
        text.push_str(&format!("\n                    {arrow} {remedy}"));
    }
    text
}

fn summary(found: &[Finding]) -> String {
    let count = |verdict| found.iter().filter(|one| one.verdict == verdict).count();
    match (count(Verdict::Problem), count(Verdict::Warning)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("nothing must be done; worth knowing: {warnings}"),
        (problems, 0) => format!("must be done: {problems}"),
        (problems, warnings) => format!("must be done: {problems}; worth knowing: {warnings}"),
    }
}
