//! `constellation block`, `unblock` and `purge`: what this station does not take, serve or share.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access::Access;
use super::arguments::{BlockArguments, BlockedAs, Global, PurgeArguments, UnblockArguments};
use super::exit::{Exit, Failure};
use super::table::columns;
use crate::control::{self, BlockReport, ModerationCommand, Named};

/// Has the station that is open, here or in another process, carry out commands.
async fn ask(access: &Access, command: ModerationCommand) -> Result<Value, Failure> {
    match access {
        Access::Running(station) => Ok(station.moderation(&command).await?),
        Access::Own(station) => {
            let context = station.control_context(station.tasks().clone());
            Ok(control::moderation(&context, command).await?)
        }
    }
}

async fn close(access: Access) {
    if let Access::Own(station) = access {
        station.close().await;
    }
}

async fn ask_once<T: DeserializeOwned>(
    global: &Global,
    command: ModerationCommand,
) -> Result<T, Failure> {
    let access = global.access().await?;
    let answer = ask(&access, command).await;
    close(access).await;
    serde_json::from_value(answer?).map_err(Failure::local)
}

fn named(target: Named, meant: Option<BlockedAs>) -> Result<Named, Failure> {
    match (target, meant) {
        (Named::Either(hex), Some(BlockedAs::Author)) => Ok(Named::Author(hex)),
        (Named::Either(hex), Some(BlockedAs::Event)) => Ok(Named::Event(hex)),
        (target @ Named::Author(_), Some(BlockedAs::Event))
        | (target @ Named::Event(_), Some(BlockedAs::Author)) => Err(Failure::usage(format!(
            "{target} says itself what it is, and --as says something else"
        ))),
        (target, _) => Ok(target),
    }
}

pub(super) async fn block(global: &Global, arguments: BlockArguments) -> Result<Exit, Failure> {
    let Some(target) = arguments.target else {
        return list(global, arguments.json).await;
    };
    let command = ModerationCommand::Block {
        target: named(target, arguments.meant)?,
        purge: false,
        reason: arguments.reason.unwrap_or_default(),
    };
    let report: BlockReport = ask_once(global, command).await?;
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        outln!("{} is blocked", report.target);
    }
    Ok(Exit::Done)
}

pub(super) async fn purge(global: &Global, arguments: PurgeArguments) -> Result<Exit, Failure> {
    let command = ModerationCommand::Block {
        target: named(arguments.target, arguments.meant)?,
        purge: true,
        reason: arguments.reason.unwrap_or_default(),
    };
    let report: BlockReport = ask_once(global, command).await?;
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        outln!("{} is purged, and blocked", report.target);
    }
    Ok(Exit::Done)
}

pub(super) async fn unblock(global: &Global, arguments: UnblockArguments) -> Result<Exit, Failure> {
    let target = named(arguments.target, arguments.meant)?;
    let named: Named = ask_once(global, ModerationCommand::Unblock { target }).await?;
    outln!("{named} is blocked no longer");
    Ok(Exit::Done)
}

async fn list(global: &Global, json: bool) -> Result<Exit, Failure> {
    let access = global.access().await?;
    let pages = pages(&access).await;
    close(access).await;
    let blocks = pages?;
    if json {
        outln!(
            "{}",
            serde_json::to_string(&blocks).map_err(Failure::local)?
        );
        return Ok(Exit::Done);
    }
    if blocks.is_empty() {
        outln!("nothing is blocked");
        return Ok(Exit::Done);
    }
    let rows = blocks.into_iter().map(|block| {
        let how = if block.purged { "purged" } else { "blocked" };
        vec![
            block.target.to_string(),
            how.to_owned(),
            block.since,
            block.reason,
        ]
    });
    outln!(
        "{}",
        columns(&["what", "", "since", "reason"], rows).trim_end()
    );
    Ok(Exit::Done)
}

async fn pages(access: &Access) -> Result<Vec<BlockReport>, Failure> {
    let mut blocks: Vec<BlockReport> = Vec::new();
    loop {
        let after = blocks.last().map(|block| block.target.clone());
        let page = ask(access, ModerationCommand::List { after }).await?;
        let page: Vec<BlockReport> = serde_json::from_value(page).map_err(Failure::local)?;
        if page.is_empty() {
            return Ok(blocks);
        }
        blocks.extend(page);
    }
}
