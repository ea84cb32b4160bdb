//! The ladder as one page: no script, no picture, nothing fetched; readable on paper, by day and by night.
//!
//! Names come from strangers. Every one passes [`escape`], which leaves no character that HTML reads as its own, none that controls a
//! terminal and none that turns the direction of text; and the page's own policy forbids scripts and everything from elsewhere.

use std::fmt::Write;

use bpi_protocol::chain::{Entry, Record};
use bpi_protocol::receipt::Receipt;
use bpi_protocol::verify::{Row, Status};

use super::Judged;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--line:#ccc;--good:#0a6b2d;--bad:#a3121b;--open:#6b5200}\
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#161616;--line:#444;--good:#6fd08c;--bad:#ff8a8a;--open:#e0c060}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}\
th[scope=row]{white-space:nowrap;font-weight:600}code{font:.9em ui-monospace,monospace}.s{white-space:nowrap;font-weight:700}\
.pass{color:var(--good)}.fail{color:var(--bad)}.open{color:var(--open)}.v{font-size:1.2rem;border-left:.4rem solid;padding-left:.8rem}\
@media print{:root{--ink:#000;--paper:#fff;--line:#888;--good:#000;--bad:#000;--open:#000}body{margin:0;max-width:none}tr{break-inside:avoid}}";

/// The page.
pub(super) fn page(judged: &Judged<'_>) -> String {
    let report = &judged.report;
    let verdict = match report.exit_code() {
        0 => "pass",
        3 => "open",
        _ => "fail",
    };
    let mut rows = String::new();
    for row in &report.rows {
        let required = if report.requires(row.name) { "required" } else { "" };
        push_row(&mut rows, row, required);
    }
    let mut facts = String::new();
    if let Ok(Entry { record: Record::Receipt(receipt), subject, .. }) = judged.evidence.entry() {
        receipt_facts(&mut facts, &receipt, &subject.to_string());
    }
    if let Some(claimed) = &report.claimed {
        fact(&mut facts, "Determinism, as claimed", &claimed.to_string());
    }
    for withheld in &report.withheld {
        fact(&mut facts, &format!("Withheld: {}", withheld.part), &withheld.to_string());
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Evidence of a run</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
<h1>Evidence of a run</h1>\n<p class=\"v {verdict}\">{}</p>\n\
<p>Level asked for: {}. Checked offline on <time>{}</time> by docklock {}.</p>\n\
<h2>What was checked</h2>\n<table>\n<thead><tr><th scope=\"col\">Rung</th><th scope=\"col\">Found</th><th scope=\"col\">Why</th><th scope=\"col\">At this level</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n\
<h2>What the receipt says</h2>\n<p>The signer’s words; the table above says how far they are proved.</p>\n<table>\n<tbody>\n{facts}</tbody>\n</table>\n\
<p>This page is a copy of what one check found. Whoever doubts it runs <code>docklock verify</code> on the evidence.</p>\n</body>\n</html>\n",
        escape(&report.verdict()),
        escape(report.level.as_str()),
        escape(&judged.judged_on),
        escape(docklock::seal::VERSION),
    )
}

fn push_row(rows: &mut String, row: &Row, required: &str) {
    let class = match row.status {
        Status::Pass => "pass",
        Status::Fail => "fail",
        Status::NotChecked => "open",
    };
    let (name, status, detail) = (row.name.as_str(), row.status.as_str(), escape(&row.detail));
    // Writing to a String cannot fail.
    writeln!(rows, "<tr><th scope=\"row\">{name}</th><td class=\"s {class}\">{status}</td><td>{detail}</td><td>{required}</td></tr>")
        .unwrap_or_default();
}

fn receipt_facts(facts: &mut String, receipt: &Receipt, run_hash: &str) {
    let run = &receipt.run;
    let image =
        run.image.as_ref().map_or_else(|| "none is named".to_owned(), |image| format!("sha256:{}", image.digest));
    let ended = match (run.result.exit_code, run.result.signal) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    for (name, value) in [
        ("Run-hash", run_hash.to_owned()),
        ("Image", image),
        ("Container", receipt.observed.container_id.clone()),
        ("Cage", format!("{} sha256:{}", run.cage.profile, run.cage.digest)),
        ("Ended with", ended),
        ("Standard output", format!("{} bytes, sha256:{}", run.result.stdout.bytes, run.result.stdout.digest)),
        ("Standard error", format!("{} bytes, sha256:{}", run.result.stderr.bytes, run.result.stderr.digest)),
        ("Outputs", format!("{} entries, sha256:{}", run.result.outputs.entries, run.result.outputs.digest)),
        ("Host", receipt.host.id.clone()),
        ("Started, by the host’s clock", receipt.observed.started_on.clone()),
        ("Finished, by the host’s clock", receipt.observed.finished_on.clone()),
        ("Chain", format!("boundary {}, seq {}", receipt.chain.boundary, receipt.chain.seq)),
    ] {
        fact(facts, name, &value);
    }
}

fn fact(facts: &mut String, name: &str, value: &str) {
    writeln!(facts, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value)).unwrap_or_default();
}

/// `text` as HTML text.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Controls, and marks that reorder text (Unicode UAX #9, 2.1 to 2.6).
            c if c.is_control() => safe.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.push('\u{fffd}')
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_write_html_or_turn_text_around() {
        let name = "<script>alert('1')</script>&\"\u{202e}\u{1b}[31m";
        let safe = escape(name);
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}']), "{safe}");
        assert!(safe.starts_with("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"), "{safe}");
    }

    #[test]
    fn the_style_fetches_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
