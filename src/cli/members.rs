//! `constellation members`.

use super::access::Access;
use super::arguments::{Global, MembersArguments};
use super::exit::{Exit, Failure};
use super::table::{columns, thousands};
use crate::graph::{AuthorReport, MembersReport};

pub(super) async fn members(
    global: &Global,
    arguments: &MembersArguments,
) -> Result<Exit, Failure> {
    let report = match global.access().await? {
        Access::Running(station) => station.members(arguments.all).await?,
        Access::Own(station) => {
            let report = station.graph().report(arguments.all).await;
            station.close().await;
            report.map_err(Failure::local)?
        }
    };
    if arguments.json {
        outln!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::local)?
        );
    } else {
        outln!("{}", as_text(&report).trim_end());
    }
    Ok(Exit::Done)
}

fn as_text(report: &MembersReport) -> String {
    let count = |count: usize| thousands(count as u64);
    let mut text = format!(
        "{} authors: {} members, {} whom they follow (n1), {} whom those follow (n2)\n",
        count(report.authors_in_scope),
        count(report.members),
        count(report.n1),
        count(report.n2)
    );
    let cut = &report.cut;
    let authors = cut.members + cut.n1 + cut.n2;
    if authors > 0 {
        text.push_str(&format!(
            "! {} more are left out, the least followed: [scope] authors_max\n",
            count(authors)
        ));
    }
    for (left_out, what) in [
        (cut.follow_lists, "follow lists"),
        (cut.file_keys, "files, or keys of files,"),
    ] {
        if left_out > 0 {
            text.push_str(&format!("! {} {what} are not read\n", count(left_out)));
        }
    }
    if report.members == 0 {
        text.push_str("no member is known: [scope] members, member_files\n");
    }
    if !report.authors.is_empty() {
        let head = ["public key", "name", "level", "why", "followers"];
        text.push_str(&columns(&head, report.authors.iter().map(row)));
    }
    text
}

fn row(author: &AuthorReport) -> Vec<String> {
    let name = match (&author.name, &author.display_name) {
        (Some(name), Some(display)) if name != display => format!("{name} ({display})"),
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => "-".to_owned(),
    };
    let why: Vec<&str> = author.why.iter().map(|why| why.as_str()).collect();
    vec![
        author.pubkey.clone(),
        name,
        author.level.as_str().to_owned(),
        why.join(", "),
        author.followers.to_string(),
    ]
}
