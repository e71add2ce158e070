//! What tunnels cost: bytes, round trips, new streams, bursts, idling, exchanges; ours beside kubo's and beside none.
//!
//! `cargo bench --bench tunnels -- [SECTION…] [--megabytes N] [--events N] [--constellation PATH] [--kubo PATH]
//! [--json]`; without a section, all of them, in some four minutes. Stations and daemons are processes of their own on loopback; their processor time
//! and memory are the kernel's account. Prints tables, or one JSON array; judges nothing. Deliberately absent:
//! averages of many runs. Figures of a machine that does something else at the time are worth nothing; compare only
//! figures of one run.

mod exchanging;
mod idling;
#[path = "../../tests/interop/kubo.rs"]
mod kubo;
mod load;
mod measures;
mod neighbours;
mod station;
mod table;
mod target;
mod way;

use std::error::Error;
use std::path::PathBuf;

use table::Table;

/// Anything that keeps a figure from being measured ends the benchmark: there are no figures without their neighbours.
pub(crate) type Measured<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Asked {
    sections: Vec<String>,
    /// Millions of bytes moved one way on loopback; half as many at a distance.
    pub(crate) megabytes: u64,
    /// Events of the cold exchanges.
    pub(crate) events: usize,
    /// The program to be measured.
    pub(crate) constellation: PathBuf,
    /// kubo's `ipfs`; without it, its figures are left out.
    pub(crate) kubo: PathBuf,
    json: bool,
}

impl Asked {
    fn from_arguments() -> Result<Self, String> {
        let mut asked = Self {
            sections: Vec::new(),
            megabytes: 1_000,
            events: 100_000,
            constellation: env!("CARGO_BIN_EXE_constellation").into(),
            kubo: kubo::binary(),
            json: false,
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
                "--megabytes" => asked.megabytes = number(value()?)?,
                "--events" => {
                    asked.events = usize::try_from(number(value()?)?).unwrap_or(usize::MAX)
                }
                "--constellation" => asked.constellation = value()?.into(),
                "--kubo" => asked.kubo = value()?.into(),
                "--json" => asked.json = true,
                // Cargo says so to every benchmark.
                "--bench" => {}
                section if SECTIONS.iter().any(|(name, _)| *name == section) => {
                    asked.sections.push(word);
                }
                _ => return Err(format!("{word} is unknown")),
            }
        }
        Ok(asked)
    }

    fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|name| name == section)
    }

    /// Whether kubo is there to be compared with.
    pub(crate) fn has_kubo(&self) -> bool {
        self.kubo.exists()
    }
}

type Section = fn(&Asked, &mut Table) -> Measured<()>;

/// In the order in which they are measured.
const SECTIONS: [(&str, Section); 6] = [
    ("bulk", measures::bulk),
    ("distance", measures::distance),
    ("latency", measures::latency),
    ("burst", measures::burst),
    ("idle", idling::idle),
    ("exchange", exchanging::exchange),
];

fn main() -> Measured<()> {
    // Parts of the measurement that are to be processes of their own.
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(target::WORD) => return target::serve(),
        Some(neighbours::WORD) => return neighbours::stay(&words[1..]),
        _ => {}
    }
    let asked = Asked::from_arguments()?;
    let mut table = Table::new(asked.json);
    if !asked.has_kubo() {
        eprintln!("{} is not there: kubo is left out", asked.kubo.display());
    }
    for (name, section) in SECTIONS {
        if asked.wants(name) {
            table.begin(name);
            section(&asked, &mut table)?;
        }
    }
    table.end()
}
