//! Figures, printed as they come: a table for each section, or one JSON array at the end.
//!
//! A figure's name says its unit. Invariant: rows of one section have the same figures, those that mean nothing for a
//! row left out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Measured;

/// Width of a column; of the first, in which a row says what it is.
const COLUMN: usize = 18;
const FIRST_COLUMN: usize = 44;

/// One line of figures.
#[derive(Debug, Serialize)]
struct Row {
    section: &'static str,
    what: String,
    figures: BTreeMap<&'static str, f64>,
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Table {
    as_json: bool,
    section: &'static str,
    headed: bool,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(as_json: bool) -> Self {
        Self {
            as_json,
            section: "",
            headed: false,
            rows: Vec::new(),
        }
    }

    /// From here on, rows are of this section.
    pub(crate) fn begin(&mut self, section: &'static str) {
        self.section = section;
        self.headed = false;
    }

    /// A row: names, and figures where there are any.
    pub(crate) fn add(&mut self, what: impl Into<String>, figures: &[(&'static str, Option<f64>)]) {
        let what = what.into();
        if !self.as_json {
            if !self.headed {
                let names = figures.iter().map(|(name, _)| (*name).to_owned());
                println!("{}", line(&format!("== {}", self.section), names));
                self.headed = true;
            }
            let shown = figures
                .iter()
                .map(|(_, figure)| figure.map_or_else(|| "-".to_owned(), plain));
            println!("{}", line(&what, shown));
        }
        let present = figures
            .iter()
            .filter_map(|(name, figure)| Some((*name, (*figure)?)));
        self.rows.push(Row {
            section: self.section,
            what,
            figures: present.collect(),
        });
    }

    /// Prints the array, if that is what was asked for.
    pub(crate) fn end(&self) -> Measured<()> {
        if self.as_json {
            println!("{}", serde_json::to_string(&self.rows)?);
        }
        Ok(())
    }
}

fn line(first: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>COLUMN$}")).collect();
    format!("{first:<FIRST_COLUMN$}{cells}")
}

/// Three digits or so.
fn plain(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        medium if medium >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
