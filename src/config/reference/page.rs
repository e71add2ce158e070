//! The page `docs/configuration.md`, made from the data.
//!
//! Pure. It is kept in the repository, so that it can be read there; a test compares the two.

use super::{Group, Key, SECTIONS, Section, Shape, variable};

const HEAD: &str = "\
# Configuration

One TOML file: `$XDG_CONFIG_HOME/constellation/constellation.toml`, or what `--config` names. `constellation init` writes it, with every key
commented out. Without a file, all is as the defaults say. Unknown keys are refused, with their line.

A variable of the environment overrides a key: `CONSTELLATION_<SECTION>__<KEY>`, with two underscores between them. A text is written there
as it is, without quotes; lists, numbers and `true` or `false` as in the file. SIGHUP has a running station read the file again.

A span of time is written as `\"90s\"`, `\"30m\"` or `\"1h\"`. An address of a peer is `ws://host:port`, `wss://host`, a multiaddr that ends in
`/p2p/<PeerID>`, or `/p2p/<PeerID>`.

<!-- Made from src/config/reference by: constellation init --reference > docs/configuration.md -->
";

/// The page, as Markdown.
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push_str(&format!("\n## `{}`\n", section.head()));
        if !section.about.is_empty() {
            text.push_str(&format!("\n{}\n", plain(section.about)));
        }
        for group in section.groups {
            text.push_str(&of_group(section, group));
        }
    }
    text
}

fn of_group(section: &Section, group: &Group) -> String {
    let names: Vec<String> = group
        .keys
        .iter()
        .map(|key| format!("`{}`", key.name))
        .collect();
    let mut text = format!(
        "\n### {}\n\n{}\n\n",
        names.join(", "),
        plain(group.explained)
    );
    text.push_str(
        "| key | type | default | example | variable |\n| --- | --- | --- | --- | --- |\n",
    );
    for key in group.keys {
        text.push_str(&row(section, key));
    }
    text
}

fn row(section: &Section, key: &Key) -> String {
    let default = key
        .default
        .map_or_else(|| format!("`{}`", key.value), str::to_owned);
    let variable = match section.shape {
        Shape::Table => format!("`{}`", variable(section, key)),
        Shape::List => "–".to_owned(),
    };
    format!(
        "| `{}` | {} | {default} | `{} = {}` | {variable} |\n",
        key.name, key.kind, key.name, key.value
    )
}

/// What would be taken for Markdown is none.
fn plain(text: &str) -> String {
    text.replace('*', "\\*").replace('<', "\\<")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_the_one_that_the_code_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == page(),
            "docs/configuration.md is not what the code says; run: \
             cargo run -- init --reference > docs/configuration.md"
        );
    }
}
