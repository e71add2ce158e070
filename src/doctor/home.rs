//! The home relay: whether it answers, what it limits, and whether the command that writes into it runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::remedy::{quoted, quoted_path, toml_text};
use super::{CheckName, Finding, Remedy, Scene, relay};
use crate::child_process::{ChildProcess, Listening};
use crate::home::{HomeOptions, HomeWrite};
use crate::protocol::RelayInformation;

/// How long the command may take to say its version.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// An event of the largest size that we take fits into a message of so many bytes.
const MESSAGE_BYTES_WANTED: u64 = 65_536;
const NIP_77: u32 = 77;

pub(super) async fn check(scene: &Scene<'_>, dates: &mut Vec<i64>) -> Vec<Finding> {
    let Some(home) = scene.config.sync_options().home else {
        return vec![CheckName::HomeRelay.ok("none: the station is a relay by itself")];
    };
    let mut found = vec![relay(scene, &home, dates).await];
    if home.write == HomeWrite::Import {
        found.push(writer(scene, &home).await);
    }
    found
}

async fn relay(scene: &Scene<'_>, home: &HomeOptions, dates: &mut Vec<i64>) -> Finding {
    let name = CheckName::HomeRelay;
    let address = &home.relay;
    let clock = &scene.around.clock;
    let visit = match relay::visit(address.url(), clock).await {
        Ok(visit) => visit,
        Err(why) => return not_there(home, &why),
    };
    dates.extend(visit.ahead);
    let compared = relay::compares(address.url(), clock).await;
    let information = match (visit.information, &compared) {
        (None, Err(why)) => return not_there(home, &format!("no relay answers there ({why})")),
        (information, _) => information.unwrap_or_default(),
    };
    let software = software(&information);
    if let Err(why) = compared {
        return name.problem(
            format!("{address} ({software}) does not compare sets (NIP-77): {why}"),
            Remedy::words(
                "in strfry.conf: relay { negentropy { enabled = true } }, then restart strfry",
            ),
        );
    }
    let limits = information.limitation.clone().unwrap_or_default();
    if let Some(bytes) = limits
        .max_message_length
        .filter(|bytes| *bytes < MESSAGE_BYTES_WANTED)
    {
        return name.warning(
            format!("{address} ({software}) takes messages of at most {bytes} bytes: larger events stay out"),
            Remedy::words("in strfry.conf: relay { maxWebsocketPayloadSize = 131072 }, then restart strfry"),
        );
    }
    let mut seen = format!("{address} ({software}) compares sets");
    if !information.supported_nips.is_empty() && !information.supported_nips.contains(&NIP_77) {
        seen.push_str(", although it does not say so");
    }
    for (limit, what) in [
        (limits.max_message_length, "bytes a message"),
        (limits.max_limit, "events an answer"),
    ] {
        if let Some(most) = limit {
            seen.push_str(&format!(", at most {most} {what}"));
        }
    }
    name.ok(seen)
}

/// It is started by the command that writes into it, if that is strfry's.
fn not_there(home: &HomeOptions, why: &str) -> Finding {
    let mut words: Vec<String> = home.strfry_command.words().iter().map(quoted).collect();
    words.push("relay".to_owned());
    CheckName::HomeRelay.problem(
        format!("{} is not reached: {why}", home.relay),
        Remedy::command(words.join(" ")),
    )
}

fn software(information: &RelayInformation) -> String {
    let software = information.software.as_deref().unwrap_or("a relay");
    let name = software.rsplit('/').next().unwrap_or(software);
    let name = name.strip_prefix("git+").unwrap_or(name);
    let name = name.strip_suffix(".git").unwrap_or(name);
    match &information.version {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }
}

/// The command is asked for its version: it reads and writes nothing then.
async fn writer(scene: &Scene<'_>, home: &HomeOptions) -> Finding {
    let name = CheckName::HomeWriter;
    let words = home.strfry_command.words();
    let Some((program, arguments)) = words.split_first() else {
        return name.ok("no command");
    };
    let mut arguments = arguments.to_vec();
    arguments.push("--version".to_owned());
    let shown = words.join(" ");
    let failed = match run(program, &arguments).await {
        Ok(Some(0)) => return name.ok(format!("{shown} runs")),
        Ok(Some(code)) => format!("{shown} --version ends with {code}"),
        Ok(None) => format!("{shown} --version was ended by a signal"),
        Err(why) => format!("{shown} does not run: {why}"),
    };
    if let Some(locked) = not_executable(words) {
        let line = format!("chmod +x {}", quoted_path(&locked));
        return name.problem(failed, Remedy::command(line));
    }
    if let Some(strfry) = strfry_here(scene.around.home.as_deref()) {
        let folder = strfry.parent().unwrap_or(Path::new("/"));
        let words = [
            "env",
            "-C",
            &folder.to_string_lossy(),
            &strfry.to_string_lossy(),
        ]
        .map(toml_text)
        .join(", ");
        let remedy = scene.setting("station", "strfry_command", format!("[{words}]"));
        return name.problem(failed, remedy);
    }
    name.problem(
        format!("{failed} (with \"event\" its write policy is asked about each event)"),
        scene.setting("station", "home_write", "\"event\""),
    )
}

async fn run(program: &str, arguments: &[String]) -> Result<Option<i32>, String> {
    let mut child = ChildProcess::start(program, arguments, Listening::StandardError)
        .map_err(|error| error.to_string())?;
    drop(child.take_input());
    drop(child.take_error());
    match tokio::time::timeout(COMMAND_DEADLINE, child.ended()).await {
        Ok(Ok(status)) => Ok(status.code()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it has not ended within five seconds".to_owned()),
    }
}

/// A program that is named by its path, is there, and may not be run: the first word, or one after `env -C FOLDER`.
fn not_executable(words: &[String]) -> Option<PathBuf> {
    let folder = words.iter().skip_while(|word| *word != "-C").nth(1);
    let folder = folder.map(PathBuf::from).unwrap_or_default();
    let named = words.iter().filter(|word| word.contains('/'));
    named.map(|word| folder.join(word)).find(|path| {
        std::fs::metadata(path)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 == 0)
    })
}

/// Where an Astroport station has it.
fn strfry_here(home: Option<&Path>) -> Option<PathBuf> {
    let path = home?.join(".zen/strfry/strfry");
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    (mode & 0o111 != 0).then_some(path)
}
