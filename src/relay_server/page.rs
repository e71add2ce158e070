//! The page that a browser sees on the relay's port.
//!
//! Takes the options and the number of events; gives HTML without scripts or foreign assets, light or dark as the
//! reader's system is. Everything that comes from the configuration is escaped.

use std::fmt::Write;

use super::information::SUPPORTED_NIPS;
use super::options::RelayOptions;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.6 system-ui,sans-serif;max-width:38rem;margin:12vh auto;padding:0 1.5rem}\
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .5rem}\
p{margin:.5rem 0}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1.5rem;margin:2rem 0}\
dt{opacity:.65}dd{margin:0;overflow-wrap:anywhere}\
footer{opacity:.65;font-size:.875rem}";

/// The page.
pub(super) fn render(options: &RelayOptions, events: Option<u64>) -> String {
    let name = escape(&options.name);
    let mut facts = String::new();
    if let Some(events) = events {
        fact(&mut facts, "Events", &grouped(events));
    }
    let nips: Vec<String> = SUPPORTED_NIPS.iter().map(u32::to_string).collect();
    fact(&mut facts, "NIPs", &nips.join(", "));
    if !options.own_urls.is_empty() {
        fact(&mut facts, "Address", &escape(&options.own_urls.join(", ")));
    }
    if let Some(contact) = &options.contact {
        fact(&mut facts, "Contact", &escape(contact));
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{name}</title><style>{STYLE}</style></head><body><main><h1>{name}</h1>\
         <p>{}</p><p>This is a Nostr relay. Open its address in a Nostr client.</p>\
         <dl>{facts}</dl></main><footer>constellation {}</footer></body></html>",
        escape(&options.description),
        env!("CARGO_PKG_VERSION"),
    )
}

fn fact(facts: &mut String, term: &str, value: &str) {
    write!(facts, "<dt>{term}</dt><dd>{value}</dd>").expect("a string takes all that is written");
}

/// `1234567` as `1 234 567`, with spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_it_is_and_escapes_what_it_is_told() {
        let options = RelayOptions {
            name: "<script>&".to_owned(),
            ..RelayOptions::default()
        };
        let page = render(&options, Some(1_234_567));
        assert!(page.contains("<h1>&lt;script&gt;&amp;</h1>"), "{page}");
        assert!(page.contains("1\u{202f}234\u{202f}567"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
        assert_eq!(grouped(999), "999");
    }
}
