//! What the store costs: writing, opening, reconciling, looking ids up, serving them. Prints tables; judges nothing.
//!
//! `cargo bench -p constellation-eventstore -- [SECTION…] [--events N] [--folder PATH] [--batch N]…`; without a
//! section, all of them. Events are real signed ones, made once and kept in `--folder` (default: a folder of the
//! system's temporary ones). The default of 200,000 takes a minute; a million some five, most of it for signatures.
//! Figures of a machine that does something else at the time are worth nothing.

#![allow(clippy::disallowed_methods)] // it measures: it needs the real time

mod events;
mod meter;
mod reading;
mod reconciling;
mod reference;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use constellation_eventstore::Options;

/// Long after every event made here.
pub(crate) const NOW: u64 = 1_750_000_000;

/// What was asked for on the command line.
pub(crate) struct Asked {
    sections: Vec<String>,
    pub(crate) events: usize,
    pub(crate) folder: PathBuf,
    pub(crate) batches: Vec<usize>,
}

impl Asked {
    fn from_arguments() -> Result<Self, String> {
        let mut asked = Self {
            sections: Vec::new(),
            events: 200_000,
            folder: std::env::temp_dir().join("constellation-bench"),
            batches: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: String| {
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("{text} is no number"))
            };
            match word.as_str() {
                "--events" => asked.events = number(value()?)?,
                "--folder" => asked.folder = value()?.into(),
                "--batch" => asked.batches.push(number(value()?)?),
                // Cargo says so to every benchmark.
                "--bench" => {}
                _ if word.starts_with('-') => return Err(format!("{word} is unknown")),
                _ => asked.sections.push(word),
            }
        }
        if asked.batches.is_empty() {
            asked.batches = vec![5_000, 10_000, 20_000, 32_000, 50_000, 64_000];
        }
        Ok(asked)
    }

    fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|name| name == section)
    }
}

pub(crate) fn options() -> Options {
    let begin = Instant::now();
    Options::new(Arc::new(move || begin.elapsed()))
}

fn main() {
    let asked = match Asked::from_arguments() {
        Ok(asked) => asked,
        Err(complaint) => {
            eprintln!("{complaint}");
            std::process::exit(2);
        }
    };
    std::fs::create_dir_all(&asked.folder).expect("a folder to work in");
    let file = events::file(&asked.folder, asked.events);
    // Before the events are loaded: what the process has then is the store's and one batch.
    if asked.wants("stream") {
        writing::stream(&asked, &file);
    }
    if !["write", "open", "ids", "reconcile"]
        .iter()
        .any(|section| asked.wants(section))
    {
        return;
    }
    let events = events::load(&file);
    if asked.wants("write") {
        writing::matrix(&asked, &events);
    }
    if asked.wants("open") || asked.wants("ids") {
        reading::run(&asked, &events, asked.wants("open"), asked.wants("ids"));
    }
    if asked.wants("reconcile") {
        reconciling::run(&asked, &events);
    }
}
