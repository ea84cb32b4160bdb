//! `docklock receipts`: this host's chains of records.

mod ask;

use std::path::{Path, PathBuf};

use bpi_protocol::chain::Record;
use bpi_protocol::evidence::Evidence;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use docklock::config::Config;
use docklock::rerun::CONFIG_FILE;
use docklock::spool::{Boundary, Gap, Spool, SpoolError, StoredRecord, boundaries};
use serde::Serialize;
use serde_json::{Value, json};

use super::folder;
use super::verify::read_evidence;
use crate::failure::Failure;
use crate::output::{Format, columns, plain, print, print_json};

/// Look at this host's records and hand over evidence
#[derive(Args)]
#[command(
    long_about = "Looks at the chains of records that this host keeps: an intent for each container before it runs, and the \
receipt or abort that closes it. There is one chain for each boundary: a containerd namespace, or `local` for runs without containerd.

Examples:
  docklock receipts list                               the newest records of every boundary
  docklock receipts show --boundary default hello      every record of container hello
  docklock receipts gaps                               what is missing, broken or still open
  docklock receipts export hello ./evidence            a folder for `docklock verify` and cosign
  docklock receipts export hello ./evidence --wait final   the same when validators have made it final, with their proofs
  docklock receipts wait hello --level included        how far it has come

Files:
  /var/lib/docklock/spool/<boundary>/records/          the records, one signed envelope each"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Whose chain: a containerd namespace or `local` [default: all for list and gaps, the only one that knows the container else]
    #[arg(long, global = true, value_name = "NAMESPACE")]
    boundary: Option<Boundary>,
    /// How to print it
    #[arg(long, global = true, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Subcommand)]
enum Action {
    /// Print the newest records
    List {
        /// How many of each boundary
        #[arg(long, value_name = "N", default_value_t = 20)]
        newest: usize,
    },
    /// Print the records of one container, or one record by its number
    Show {
        /// Container id, or the number of a record
        #[arg(value_name = "ID|SEQ")]
        wanted: String,
    },
    /// Print what the chains lack
    ///
    /// Names each missing number, each record that is broken or does not follow the one before it, and each intent that nothing has
    /// closed: `running` while its owner is at work, else `orphaned` (the next start on that boundary closes it with an abort).
    /// Exit status 0 when nothing is amiss, 1 otherwise.
    Gaps,
    /// Write the evidence of one run to a new folder
    ///
    /// The folder holds receipt.sigstore.json (a Sigstore bundle), run.json and chain.jsonl: what `docklock verify` and other
    /// people's verifiers read. The newest receipt of a container is taken.
    Export {
        /// Container id, or the number of a receipt
        #[arg(value_name = "ID|SEQ")]
        wanted: String,
        /// Folder to make
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Wait until the receipt has come so far, by this host's agent; with `final` the evidence has finality.bin and availability.bin
        #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(ask::LEVELS))]
        wait: Option<String>,
        /// Also write config.json, so that others can do the run again: it shows arguments and environment in plain
        #[arg(long)]
        repeatable: bool,
    },
    /// Wait until the receipt of a container has come so far, by this host's agent
    ///
    /// Prints each level that it reaches on standard error, and where its evidence is, if the agent writes it to a folder.
    Wait {
        /// Container id, or the number of a receipt
        #[arg(value_name = "ID|SEQ")]
        wanted: String,
        /// How far: seen, packed (sealed and coded), kept (by enough pinners), included (in a final header), final (and its data too)
        #[arg(long, value_name = "LEVEL", default_value = "final", value_parser = PossibleValuesParser::new(ask::LEVELS))]
        level: String,
    },
    /// Print the agent's incidents: containers without a receipt, refusals, gaps; the newest first
    Incidents,
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let dir = Config::load(config)?.spool_dir;
    let named = arguments.boundary.as_ref();
    match &arguments.action {
        Action::List { newest } => list(&spools(&dir, named)?, *newest, arguments.format),
        Action::Show { wanted } => show(&find(&dir, named, wanted)?.1, arguments.format),
        Action::Gaps => gaps(&spools(&dir, named)?, arguments.format),
        Action::Wait { wanted, level } => {
            let socket = Config::load(config)?.agent_socket;
            let reply = ask::wait(&socket, named, wanted, level)?;
            match arguments.format {
                Format::Text => {
                    print(&format!("{}\n", if reply.evidence.is_empty() { reply.level } else { &reply.evidence }))?
                }
                Format::Json => print_json(&reply)?,
            }
            Ok(0)
        }
        Action::Incidents => {
            let incidents = ask::incidents(&Config::load(config)?.agent_socket)?;
            match arguments.format {
                Format::Json => print_json(&incidents)?,
                Format::Text if incidents.is_empty() => print("no incidents\n")?,
                Format::Text => {
                    let head = ["ID", "KIND", "BOUNDARY", "CONTAINER", "WHAT"].map(str::to_owned).to_vec();
                    let rows = incidents.into_iter().map(|incident| {
                        vec![
                            incident.id.to_string(),
                            incident.kind,
                            incident.boundary,
                            incident.container_id,
                            incident.detail,
                        ]
                    });
                    print(&plain(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())))?;
                }
            }
            Ok(0)
        }
        Action::Export { wanted, dir: target, wait: Some(level), repeatable } => {
            let socket = Config::load(config)?.agent_socket;
            let reply = ask::wait(&socket, named, wanted, level)?;
            let boundary: Boundary = reply.boundary.parse()?;
            if reply.level == ask::FINAL {
                folder::write_files(target, &ask::evidence(&socket, &reply)?)?;
            } else {
                folder::write(&Spool::open_existing(&dir, &boundary)?, reply.seq, target)?;
            }
            if *repeatable {
                let spool = Spool::open_existing(&dir, &boundary)?;
                folder::write_config(&spool, reply.seq, &target.join(CONFIG_FILE))?;
            }
            match arguments.format {
                Format::Text => print(&format!("{}\n", target.display()))?,
                Format::Json => {
                    print_json(&json!({ "evidence": target, "boundary": reply.boundary, "seq": reply.seq }))?;
                }
            }
            Ok(0)
        }
        Action::Export { wanted, dir: target, wait: None, repeatable } => {
            let (spool, records) = find(&dir, named, wanted)?;
            let Some(receipt) = records.iter().rev().find(|record| matches!(record.record, Record::Receipt(_))) else {
                return Err(no_receipt(&spool, wanted, &records));
            };
            folder::write(&spool, receipt.seq, target)?;
            if *repeatable {
                folder::write_config(&spool, receipt.seq, &target.join(CONFIG_FILE))?;
            }
            match arguments.format {
                Format::Text => print(&format!("{}\n", target.display()))?,
                Format::Json => print_json(
                    &json!({ "evidence": target, "boundary": spool.boundary().as_str(), "seq": receipt.seq }),
                )?,
            }
            Ok(0)
        }
    }
}

pub(crate) fn no_receipt(spool: &Spool, wanted: &str, records: &[StoredRecord]) -> Failure {
    match records.last() {
        Some(last) => {
            Failure::NotAReceipt { boundary: spool.boundary().to_string(), seq: last.seq, kind: last.record.kind() }
        }
        None => no_such(spool.boundary(), wanted),
    }
}

fn no_such(boundary: &Boundary, wanted: &str) -> Failure {
    SpoolError::NoSuchRecord { boundary: boundary.clone(), wanted: wanted.to_owned() }.into()
}

/// The chain that was named, or all there are.
fn spools(dir: &Path, named: Option<&Boundary>) -> Result<Vec<Spool>, Failure> {
    let names = match named {
        Some(boundary) => vec![boundary.clone()],
        None => boundaries(dir)?,
    };
    Ok(names.iter().map(|boundary| Spool::open_existing(dir, boundary)).collect::<Result<_, _>>()?)
}

/// The records that answer to `wanted`. Without a boundary every chain is asked; the first that knows it answers, `local` before others.
pub(crate) fn find(dir: &Path, named: Option<&Boundary>, wanted: &str) -> Result<(Spool, Vec<StoredRecord>), Failure> {
    let mut spools = spools(dir, named)?;
    spools.sort_by_key(|spool| *spool.boundary() != Boundary::local());
    let first = spools.first().map_or_else(Boundary::local, |spool| spool.boundary().clone());
    for spool in spools {
        let records = match wanted.parse() {
            Ok(seq) => match spool.record(seq) {
                Ok(record) => vec![record],
                Err(SpoolError::NoSuchRecord { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            },
            Err(_) => spool.records_of(wanted)?,
        };
        if !records.is_empty() {
            return Ok((spool, records));
        }
    }
    Err(no_such(named.unwrap_or(&first), wanted))
}

/// Evidence by its path; or, of this host, the newest record of a container (its receipt or its abort), or one by its number.
pub(crate) fn evidence(named: &Path, config: Option<&Path>) -> Result<Evidence, Failure> {
    let id = named.to_str().filter(|text| !text.contains('/') && !named.exists());
    let Some(id) = id else { return read_evidence(named) };
    let (spool, records) = find(&Config::load(config)?.spool_dir, None, id)?;
    let Some(newest) = records.last() else { return Err(no_such(spool.boundary(), id)) };
    let path = newest.path.clone();
    Evidence::from_bytes(&newest.envelope.to_json())
        .map_err(|error| Failure::EvidenceMalformed { path, reason: error.to_string() })
}

/// One line of `list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    boundary: String,
    seq: u64,
    kind: &'static str,
    container_id: String,
    time: String,
    summary: String,
    digest: String,
}

impl Line {
    fn of(record: &StoredRecord) -> Self {
        let (time, summary) = match &record.record {
            Record::Intent(intent) => (&intent.intended_on, format!("profile {}", intent.cage.profile)),
            Record::Receipt(receipt) => {
                (&receipt.observed.finished_on, ending(receipt.run.result.exit_code, receipt.run.result.signal))
            }
            Record::Abort(abort) => (&abort.aborted_on, abort.reason.clone()),
        };
        Self {
            boundary: record.link().boundary.clone(),
            seq: record.seq,
            kind: record.record.kind(),
            container_id: record.container_id().to_owned(),
            time: time.clone(),
            summary,
            digest: record.digest.to_string(),
        }
    }
}

/// How a run ended, in two or three words.
pub(crate) fn ending(exit_code: Option<u64>, signal: Option<u64>) -> String {
    match (exit_code, signal) {
        (Some(status), _) => format!("exited {status}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn list(spools: &[Spool], newest: usize, format: Format) -> Result<u8, Failure> {
    let mut lines = Vec::new();
    for spool in spools {
        let seqs = spool.seqs()?;
        for seq in &seqs[seqs.len().saturating_sub(newest)..] {
            lines.push(Line::of(&spool.record(*seq)?));
        }
    }
    match format {
        Format::Json => print_json(&lines)?,
        Format::Text => {
            let head = ["BOUNDARY", "SEQ", "KIND", "CONTAINER", "TIME", "SUMMARY"].map(str::to_owned).to_vec();
            let rows = lines.into_iter().map(|line| {
                vec![
                    line.boundary,
                    line.seq.to_string(),
                    line.kind.to_owned(),
                    line.container_id,
                    line.time,
                    line.summary,
                ]
            });
            print(&plain(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())))?;
        }
    }
    Ok(0)
}

fn show(records: &[StoredRecord], format: Format) -> Result<u8, Failure> {
    let mut shown = Vec::new();
    for record in records {
        let predicate = match &record.record {
            Record::Intent(intent) => json!(intent),
            Record::Receipt(receipt) => json!(receipt),
            Record::Abort(abort) => json!(abort),
        };
        shown.push(json!({
            "seq": record.seq,
            "kind": record.record.kind(),
            "digest": record.digest.to_string(),
            "file": record.path,
            "predicate": predicate,
        }));
    }
    match format {
        Format::Json => print_json(&shown)?,
        Format::Text => {
            let text = shown.iter().map(|record| outline(record, 0)).collect::<Vec<_>>().join("\n");
            print(&plain(&text))?;
        }
    }
    Ok(0)
}

/// A JSON value as indented `name: value` lines.
fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let member = |name: &str, value: &Value| match value {
        Value::Object(members) if members.len() == 1 && members.contains_key("sha256") => {
            format!("{indent}{name}: sha256:{}\n", scalar(&members["sha256"]))
        }
        Value::Object(_) => format!("{indent}{name}:\n{}", outline(value, depth + 1)),
        Value::Array(items) if items.is_empty() => format!("{indent}{name}: none\n"),
        Value::Array(_) => format!("{indent}{name}:\n{}", outline(value, depth + 1)),
        other => format!("{indent}{name}: {}\n", scalar(other)),
    };
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| member(name, value)).collect(),
        Value::Array(items) => items.iter().map(|item| member("-", item)).collect(),
        other => format!("{indent}{}\n", scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn gaps(spools: &[Spool], format: Format) -> Result<u8, Failure> {
    let mut all: Vec<(String, Gap)> = Vec::new();
    for spool in spools {
        all.extend(spool.gaps()?.into_iter().map(|gap| (spool.boundary().to_string(), gap)));
    }
    let amiss = all.iter().any(|(_, gap)| gap.is_fault());
    match format {
        Format::Json => {
            let list: Vec<Value> =
                all.iter().map(|(boundary, gap)| json!({ "boundary": boundary, "gap": gap })).collect();
            print_json(&json!({ "whole": !amiss, "gaps": list }))?;
        }
        Format::Text if all.is_empty() => print("every record is there and every intent is closed\n")?,
        Format::Text => {
            let text: String = all.iter().map(|(boundary, gap)| format!("{boundary}: {}\n", sentence(gap))).collect();
            print(&plain(&text))?;
        }
    }
    Ok(u8::from(amiss))
}

fn sentence(gap: &Gap) -> String {
    match gap {
        Gap::Missing { seq } => format!("record {seq} is missing"),
        Gap::Broken { seq, reason } => format!("record {seq} is broken: {reason}"),
        Gap::Running { seq, container_id, pid } => {
            format!("record {seq}: container {container_id} is running, owned by process {pid}")
        }
        Gap::Orphaned { seq, container_id } => {
            format!(
                "record {seq}: nothing has closed the intent of container {container_id}; the next start on this boundary will"
            )
        }
    }
}
