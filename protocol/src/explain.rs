//! A receipt in plain words, on one page.
//!
//! Says what the receipt claims and what it does not claim; whether it is true is [`crate::verify::verify`]'s. Everything a stranger could have
//! put into a name is shown with control characters escaped, so that a receipt cannot write to somebody's terminal.
//! What could be changed to get a better answer depends on rules that are not part of a receipt: [`Advice`] brings it.

mod determinism;

use crate::chain::{Record, RecordError};
use crate::claim::Shortfall;
use crate::evidence::Evidence;
use crate::receipt::{Abort, Intent, Receipt};
use crate::run::{CallCount, Run, RunResult};

/// How many entries of one list are written out.
const LISTED_MAX: usize = 12;
/// Where a line is wrapped; two columns are left for what stands below another.
const COLUMNS: usize = 98;

/// What its reader could change, one sentence for each answer. The receipt's own words come from [`explain`]; a sentence of advice is shown
/// below the one it belongs to.
pub trait Advice {
    /// About a refused call.
    fn on_denied(&self, run: &Run, call: &CallCount) -> Option<String>;
    /// About a reason why the receipt claims no more.
    fn on_shortfall(&self, run: &Run, shortfall: &Shortfall) -> Option<String>;
    /// About the reason of an abort.
    fn on_abort(&self, reason: &str) -> Option<String>;
}

/// Nothing to advise.
pub struct NoAdvice;

impl Advice for NoAdvice {
    fn on_denied(&self, _: &Run, _: &CallCount) -> Option<String> {
        None
    }

    fn on_shortfall(&self, _: &Run, _: &Shortfall) -> Option<String> {
        None
    }

    fn on_abort(&self, _: &str) -> Option<String> {
        None
    }
}

/// Explains the record inside `evidence`, verified or not.
///
/// # Errors
///
/// When the payload is no record.
pub fn explain(evidence: &Evidence, advice: &dyn Advice) -> Result<String, RecordError> {
    let entry = evidence.entry()?;
    let mut page = String::new();
    match &entry.record {
        Record::Receipt(receipt) => {
            what_ran(&mut page, receipt);
            what_came_out(&mut page, &receipt.run.result);
            what_was_refused(&mut page, receipt, advice);
            determinism::what_is_claimed(&mut page, receipt, advice);
            what_fenced_it(&mut page, receipt);
            line(&mut page, &format!("The run-hash is {}.", entry.subject));
            line(
                &mut page,
                "Whoever runs the same plan under the same cage and gets the same run-hash saw the same thing happen.",
            );
        }
        Record::Intent(intent) => announced(&mut page, intent),
        Record::Abort(abort) => aborted(&mut page, abort, advice),
    }
    line(&mut page, "These are the signer's words. Whether they are true is what `docklock verify` says.");
    Ok(page)
}

/// One sentence, or a few, wrapped.
fn line(page: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            page.push('\n');
            column = 0;
        } else if column > 0 {
            page.push(' ');
            column += 1;
        }
        page.push_str(word);
        column += width;
    }
    page.push('\n');
}

/// A sentence that belongs to the one above.
fn below(page: &mut String, text: &str) {
    let mut wrapped = String::new();
    line(&mut wrapped, text);
    for part in wrapped.lines() {
        page.push_str("  ");
        page.push_str(part);
        page.push('\n');
    }
}

fn quiet(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).take(300).collect()
}

fn what_ran(page: &mut String, receipt: &Receipt) {
    let (run, observed) = (&receipt.run, &receipt.observed);
    let image = match &run.image {
        Some(image) => format!("of the image with digest sha256:{}", image.digest),
        None => "of a root file system that came from no known image".to_owned(),
    };
    line(
        page,
        &format!(
            "Container {} {image} ran on {} on host {}, from {} to {} by that host's clock.",
            quiet(&observed.container_id),
            quiet(&run.platform),
            receipt.host.id,
            observed.started_on,
            observed.finished_on
        ),
    );
    line(
        page,
        &format!(
            "It ran under the cage {} (digest {}), supervised by {} {}.",
            quiet(&run.cage.profile),
            run.cage.digest,
            quiet(&run.runtime.name),
            quiet(&observed.runtime_version)
        ),
    );
    line(
        page,
        &format!(
            "This is record {} in the chain of boundary {} on that host; before it, the chain holds the promise to run it.",
            receipt.chain.seq, receipt.chain.boundary
        ),
    );
}

fn what_came_out(page: &mut String, result: &RunResult) {
    let end = match (result.exit_code, result.signal) {
        (Some(0), _) => "It ended by itself with success (exit code 0).".to_owned(),
        (Some(code), _) => format!("It ended by itself with exit code {code}."),
        (None, Some(signal)) => format!("It was ended by signal {signal}."),
        (None, None) => "How it ended is not recorded.".to_owned(),
    };
    let outputs = match (result.outputs.scope.as_str(), result.outputs.entries) {
        ("none", _) => "the files it wrote were not measured".to_owned(),
        ("layer", entries) => format!("it left {entries} changed files and folders"),
        (_, entries) => format!("the declared outputs hold {entries} files and folders"),
    };
    line(
        page,
        &format!(
            "{end} It wrote {} bytes to standard output and {} bytes to standard error; {outputs}. The receipt holds their digests.",
            result.stdout.bytes, result.stderr.bytes
        ),
    );
}

fn what_was_refused(page: &mut String, receipt: &Receipt, advice: &dyn Advice) {
    let denied = &receipt.run.denied;
    if denied.is_empty() {
        return line(page, "The cage refused it nothing.");
    }
    let total = denied.iter().fold(0u64, |total, call| total.saturating_add(call.count));
    let one = |call: &CallCount| {
        let errno = call.errno.as_deref().unwrap_or("answered");
        format!("{} {}× ({})", quiet(&call.syscall), call.count, quiet(errno))
    };
    let mut text = format!("The cage refused {total} system {}: ", if total == 1 { "call" } else { "calls" });
    text.push_str(&listed(denied, one, "kinds more"));
    line(page, &format!("{text}."));
    for call in denied.iter().take(LISTED_MAX) {
        if let Some(words) = advice.on_denied(&receipt.run, call) {
            below(page, &format!("{}: {words}", quiet(&call.syscall)));
        }
    }
}

/// The first entries with commas between them, and how many are left.
fn listed<T>(list: &[T], show: impl Fn(&T) -> String, rest: &str) -> String {
    let mut text = list.iter().take(LISTED_MAX).map(show).collect::<Vec<_>>().join(", ");
    if list.len() > LISTED_MAX {
        text.push_str(&format!(" and {} {rest}", list.len() - LISTED_MAX));
    }
    text
}

fn what_fenced_it(page: &mut String, receipt: &Receipt) {
    let assurance = &receipt.assurance;
    let in_force: Vec<_> =
        assurance.fences.iter().filter(|fence| fence.status == "in-force").map(|fence| quiet(&fence.name)).collect();
    line(
        page,
        &format!("Fences in force: {}.", if in_force.is_empty() { "none".to_owned() } else { in_force.join(", ") }),
    );
    for fence in assurance.fences.iter().filter(|fence| fence.status != "in-force").take(LISTED_MAX) {
        let reason = fence.reason.as_deref().unwrap_or("no reason given");
        line(page, &format!("Fence {} was absent: {}.", quiet(&fence.name), quiet(reason)));
    }
    if !assurance.execs.is_empty() {
        let count = assurance.execs.iter().fold(0_u64, |sum, exec| sum.saturating_add(exec.count));
        line(
            page,
            &format!(
                "{count} processes entered from outside while it ran, so a person or a probe could have changed the result."
            ),
        );
    }
    if receipt.observed.output_undelivered {
        line(page, "Part of its output was measured but not delivered, because its reader went away.");
    }
}

fn announced(page: &mut String, intent: &Intent) {
    let container = quiet(&intent.container_id);
    line(
        page,
        &format!(
            "On {} host {} announced that container {container} would run under the cage {}.",
            intent.intended_on,
            intent.host.id,
            quiet(&intent.cage.profile)
        ),
    );
    line(page, "This is an announcement only. It does not say that the container ran, or how.");
}

fn aborted(page: &mut String, abort: &Abort, advice: &dyn Advice) {
    let container = quiet(&abort.container_id);
    line(
        page,
        &format!(
            "Container {container}, announced earlier by host {}, has no receipt and never will, as of {}: {}.",
            abort.host.id,
            abort.aborted_on,
            quiet(abort.reason.trim_end_matches('.'))
        ),
    );
    if let Some(words) = advice.on_abort(&abort.reason) {
        below(page, &words);
    }
}
