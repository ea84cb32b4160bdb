//! Two runs beside each other, for people and programs: part of `run --twice`, `diff` and `rerun`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Run;
use docklock::rerun::compare::{self, Comparison};
use docklock::rerun::listing::{self, LISTING_BYTES_MAX, ListingDiff};
use docklock::rerun::trace_diff::{self, TraceDiff};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{columns, plain};

/// How many entries of one list are written out for people; programs get all.
const LISTED_MAX: usize = 20;

/// One of two runs, and what is at hand of it.
pub(crate) struct Side {
    /// What to call it.
    pub(crate) name: String,
    /// What its receipt says.
    pub(crate) run: Option<Run>,
    /// The engine's log.
    pub(crate) trace: Option<PathBuf>,
    /// The listing of its outputs.
    pub(crate) listing: Option<PathBuf>,
}

/// How two runs differ.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Difference {
    left: String,
    right: String,
    same: bool,
    #[serde(flatten)]
    run: Comparison,
    /// Decisions of the cage, when both logs are at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    decisions: Option<TraceDiff>,
    /// Files, when both listings are at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<ListingDiff>,
    /// What could not be compared, and why.
    notes: Vec<String>,
}

impl Difference {
    /// Compares whatever is at hand of both.
    pub(crate) fn between(left: &Side, right: &Side) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        let run = match (&left.run, &right.run) {
            (Some(left), Some(right)) => compare::compare(left, right),
            _ => Comparison::default(),
        };
        let decisions = match (usable_log(left, &mut notes)?, usable_log(right, &mut notes)?) {
            (Some(one), Some(other)) => {
                let parted = trace_diff::first_divergence(open(one)?, open(other)?);
                Some(parted.map_err(|error| Failure::Log { path: one.to_path_buf(), reason: error.to_string() })?)
            }
            _ => {
                let differ = run.differ.iter().any(|difference| difference.part == "trace");
                if differ {
                    notes.push(
                        "the first decision that differs cannot be named without both logs (docklock run --trace)"
                            .to_owned(),
                    );
                }
                None
            }
        };
        let files = match (usable_listing(left, &mut notes)?, usable_listing(right, &mut notes)?) {
            (Some(one), Some(other)) => {
                let diff = listing::diff(&one.1, &other.1);
                Some(diff.map_err(|error| Failure::Listing { path: one.0, reason: error.to_string() })?)
            }
            _ => None,
        };
        let same = run.differ.is_empty()
            && decisions.as_ref().is_none_or(|decisions| decisions.divergence.is_none())
            && files.as_ref().is_none_or(ListingDiff::is_empty);
        Ok(Self { left: left.name.clone(), right: right.name.clone(), same, run, decisions, files, notes })
    }

    /// Whether nothing differs.
    pub(crate) fn is_none(&self) -> bool {
        self.same
    }

    /// Adds what its reader has to know.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// As a page of text.
    pub(crate) fn text(&self) -> String {
        let mut page = String::new();
        if !self.run.equal.is_empty() {
            page.push_str(&format!("equal: {}\n", self.run.equal.join(", ")));
        }
        if !self.run.differ.is_empty() {
            let none = || "(none)".to_owned();
            let head = ["DIFFERS".to_owned(), self.left.clone(), self.right.clone()].to_vec();
            let rows = self.run.differ.iter().take(LISTED_MAX).map(|one| {
                vec![one.member.clone(), one.left.clone().unwrap_or_else(none), one.right.clone().unwrap_or_else(none)]
            });
            page.push_str(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
            push_rest(&mut page, self.run.differ.len(), "members");
        }
        self.decisions_text(&mut page);
        self.files_text(&mut page);
        for note in &self.notes {
            page.push_str(&format!("note: {note}\n"));
        }
        page.push_str(&self.verdict());
        page.push('\n');
        plain(&page)
    }

    /// One sentence.
    pub(crate) fn verdict(&self) -> String {
        if self.same {
            return format!("same: nothing differs between {} and {}", self.left, self.right);
        }
        let parted = self.decisions.as_ref().and_then(|decisions| decisions.divergence.as_ref());
        match (self.run.first(), parted) {
            (Some(part), Some(parted)) => {
                format!("different: first in {part}; decision {} is the first that differs", parted.index)
            }
            (Some(part), None) => format!("different: first in {part}"),
            (None, Some(parted)) => format!("different: decision {} is the first that differs", parted.index),
            (None, None) => "different: files of the output tree differ".to_owned(),
        }
    }

    fn decisions_text(&self, page: &mut String) {
        let Some(decisions) = &self.decisions else { return };
        let Some(parted) = &decisions.divergence else {
            page.push_str(&format!("decisions: all {} are the same\n", decisions.common));
            return;
        };
        page.push_str(&format!("decisions: {} are the same, then\n", decisions.common));
        for event in &parted.before {
            page.push_str(&format!("  both   {event}\n"));
        }
        for (side, event) in [("left", &parted.left), ("right", &parted.right)] {
            let words = event.map_or_else(|| "the log ends".to_owned(), |event| event.to_string());
            page.push_str(&format!("  {side:<6} {words}\n"));
        }
        if let Some(first) = decisions.first_argument.filter(|first| *first < parted.index) {
            page.push_str(&format!(
                "  arguments differ before that, first at decision {first}: often an address, and often the cause\n"
            ));
        }
    }

    fn files_text(&self, page: &mut String) {
        let Some(files) = &self.files else { return };
        if files.is_empty() {
            page.push_str(&format!("files: all {} are the same\n", files.same));
            return;
        }
        page.push_str(&format!("files: {} are the same\n", files.same));
        let lists = [("only left", &files.left_only), ("only right", &files.right_only)];
        for (words, paths) in lists {
            for path in paths.iter().take(LISTED_MAX) {
                page.push_str(&format!("  {words}: {path}\n"));
            }
            push_rest(page, paths.len(), words);
        }
        for changed in files.changed.iter().take(LISTED_MAX) {
            page.push_str(&format!("  changed: {}: {} | {}\n", changed.path, changed.left, changed.right));
        }
        push_rest(page, files.changed.len(), "changed");
    }
}

fn push_rest(page: &mut String, count: usize, words: &str) {
    if count > LISTED_MAX {
        page.push_str(&format!("  and {} {words} more\n", count - LISTED_MAX));
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|source| Failure::File { deed: "open", path: path.to_path_buf(), source })
}

/// The log of a side, unless its receipt speaks of another one.
fn usable_log<'a>(side: &'a Side, notes: &mut Vec<String>) -> Result<Option<&'a Path>, Failure> {
    let Some(path) = side.trace.as_deref().filter(|path| path.exists()) else { return Ok(None) };
    let Some(run) = &side.run else { return Ok(Some(path)) };
    let malformed =
        |error: trace_diff::TraceError| Failure::Log { path: path.to_path_buf(), reason: error.to_string() };
    let (root, _) = trace_diff::root(open(path)?).map_err(malformed)?;
    if run.trace.as_ref().is_some_and(|trace| trace.digest == root) {
        return Ok(Some(path));
    }
    notes.push(format!(
        "{} is not the log that the receipt of {} names, and was not compared",
        path.display(),
        side.name
    ));
    Ok(None)
}

/// The listing of a side, unless its receipt speaks of another one. Where a plan declared paths the receipt's digest is theirs alone, and the
/// listing holds whatever the run changed.
fn usable_listing(side: &Side, notes: &mut Vec<String>) -> Result<Option<(PathBuf, Vec<u8>)>, Failure> {
    let Some(path) = side.listing.as_deref().filter(|path| path.exists()) else { return Ok(None) };
    let (path, bytes) = read_listing(path)?;
    let Some(run) = &side.run else { return Ok(Some((path, bytes))) };
    if run.result.outputs.digest == Sha256Digest::of(&bytes) {
        return Ok(Some((path, bytes)));
    }
    if run.result.outputs.scope == "paths" {
        notes.push(format!(
            "files of {}: all that it changed; its receipt speaks of the declared paths alone",
            side.name
        ));
        return Ok(Some((path, bytes)));
    }
    notes.push(format!(
        "{} is not the listing that the receipt of {} names, and was not compared",
        path.display(),
        side.name
    ));
    Ok(None)
}

fn read_listing(path: &Path) -> Result<(PathBuf, Vec<u8>), Failure> {
    let mut bytes = Vec::new();
    let source = |source| Failure::File { deed: "read", path: path.to_path_buf(), source };
    open(path)?.take(LISTING_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(source)?;
    if bytes.len() > LISTING_BYTES_MAX {
        let reason = format!("it is longer than {LISTING_BYTES_MAX} bytes");
        return Err(Failure::Listing { path: path.to_path_buf(), reason });
    }
    Ok((path.to_path_buf(), bytes))
}
