//! The `bpi-devnet-ca` command: an authority of SVIDs in a folder, for devnets and tests.

#![deny(unsafe_code)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bpi_identity::devnet::{DevnetError, Folder, Order, ROOT_LIFE_S, SVID_LIFE_S};
use bpi_identity::directory::Document;
use bpi_identity::pem::PemError;
use bpi_identity::svid::{SvidError, read_leaf};
use bpi_identity::{SpiffeId, TrustDomain};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why
  2    wrong usage

Examples:
  bpi-devnet-ca init --dir ca --domain bpi.devnet
  bpi-devnet-ca issue --dir ca --id spiffe://bpi.devnet/relay/r1        writes ca/relay/r1.pem; again: rotates it
  bpi-devnet-ca rotate --dir ca                                         a new root; SVIDs of the old one go on holding
  bpi-devnet-ca directory --dir ca --to directory.json members.json
  bpi-devnet-ca show ca/relay/r1.pem";

/// An authority of SVIDs in a folder, for devnets and tests
#[derive(Parser)]
#[command(name = "bpi-devnet-ca", version, after_long_help = AFTER_HELP)]
struct Cli {
    /// How to print what was done
    #[arg(long, global = true, value_enum, default_value = "text")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Make the folder, a root and a key for directories
    Init {
        #[command(flatten)]
        folder: FolderArgument,
        /// The trust domain, as in bpi.devnet
        #[arg(long)]
        domain: TrustDomain,
        /// How long the root lives [default: 3650]
        #[arg(long)]
        days: Option<u64>,
    },
    /// Issue an SVID, or replace the one that is there
    Issue {
        #[command(flatten)]
        folder: FolderArgument,
        /// Whose: spiffe://DOMAIN/ROLE/NAME, the role one of validator, agent, relay, pinner, service
        #[arg(long)]
        id: SpiffeId,
        /// How long it lives, in days [default: 1]
        #[arg(long, conflicts_with = "seconds")]
        days: Option<u64>,
        /// How long it lives, in seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// A DNS name too, for clients that know nothing of SPIFFE; may be repeated
        #[arg(long)]
        dns: Vec<String>,
        /// Where to write it [default: DIR/ROLE/NAME.pem]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Make a new root that signs from now on; the old ones stay in the bundle while they are valid
    Rotate {
        #[command(flatten)]
        folder: FolderArgument,
        /// How long the root lives [default: 3650]
        #[arg(long)]
        days: Option<u64>,
    },
    /// Sign a directory of members
    Directory {
        #[command(flatten)]
        folder: FolderArgument,
        /// The document, as JSON: domain, members, validUntil, version
        file: PathBuf,
        /// Where to write the signed one
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Print what certificates say
    Show {
        /// A PEM file
        file: PathBuf,
    },
}

#[derive(Args)]
struct FolderArgument {
    /// The folder of the authority
    #[arg(long = "dir", value_name = "DIR")]
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Devnet(#[from] DevnetError),
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{path} cannot be read: {reason}", path = path.display())]
    Read { path: PathBuf, reason: String },
    #[error("{path} is no directory document: {reason}", path = path.display())]
    Document { path: PathBuf, reason: String },
    #[error("{path} has no certificate", path = path.display())]
    Nothing { path: PathBuf },
    #[error("the system's clock is before 1970")]
    Clock,
}

/// Longest file that `show` and `directory` read.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let Cli { format, command } = Cli::parse();
    match run(command) {
        Ok(value) => {
            print!("{}", render(&value, format));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("bpi-devnet-ca: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Value, Failure> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Failure::Clock)?.as_secs();
    let in_seconds = |days: Option<u64>, unless: u64| days.map_or(unless, |days| days.saturating_mul(86_400));
    match command {
        Command::Init { folder, domain, days } => {
            let folder = Folder::at(folder.path);
            folder.init(&domain, now_s, in_seconds(days, ROOT_LIFE_S))?;
            Ok(json!({
                "domain": domain.as_str(),
                "bundle": folder.bundle_path(),
                "directoryKey": folder.directory_key_path(),
            }))
        }
        Command::Issue { folder, id, days, seconds, dns, to } => {
            let life_s = seconds.unwrap_or_else(|| in_seconds(days, SVID_LIFE_S));
            let order = Order { dns, ..Order::of_life(now_s, life_s) };
            let issued = Folder::at(folder.path).issue(&id, &order, now_s, to.as_deref())?;
            Ok(json!({
                "id": id.to_string(),
                "file": issued.path,
                "notBefore": issued.leaf.not_before_s,
                "notAfter": issued.leaf.not_after_s,
            }))
        }
        Command::Rotate { folder, days } => {
            let folder = Folder::at(folder.path);
            folder.rotate(now_s, in_seconds(days, ROOT_LIFE_S))?;
            Ok(json!({ "bundle": folder.bundle_path(), "roots": folder.bundle()?.roots().len() }))
        }
        Command::Directory { folder, file, to } => {
            let text = read(&file)?;
            let document: Document = serde_json::from_slice(&text)
                .map_err(|error| Failure::Document { path: file, reason: error.to_string() })?;
            let signed = Folder::at(folder.path).sign_directory(&document, now_s, &to)?;
            let members = signed.document().members.len();
            Ok(json!({ "file": to, "version": signed.version(), "members": members, "sha256": signed.digest() }))
        }
        Command::Show { file } => {
            let text = read(&file)?;
            let mut shown = Vec::new();
            for der in CertificateDer::pem_slice_iter(&text) {
                let der = der.map_err(|error| PemError::Syntax { path: file.clone(), reason: error.to_string() })?;
                shown.push(describe(&der, now_s)?);
            }
            if shown.is_empty() {
                return Err(Failure::Nothing { path: file });
            }
            Ok(Value::Array(shown))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failed = |reason: String| Failure::Read { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// What one certificate says: an SVID's leaf, a root, or why it is neither.
fn describe(der: &CertificateDer<'_>, now_s: u64) -> Result<Value, Failure> {
    let facts = bpi_identity::devnet::facts(der).map_err(Failure::Devnet)?;
    let state = match now_s {
        _ if now_s < facts.not_before_s => "not yet valid",
        _ if now_s > facts.not_after_s => "expired",
        _ => "valid",
    };
    let (kind, refused) = match read_leaf(der) {
        Ok(_) => ("svid", None),
        Err(SvidError::Authority | SvidError::Id(_)) if facts.is_authority => ("root", None),
        Err(reason) => ("refused", Some(reason.to_string())),
    };
    let mut value = json!({
        "kind": kind,
        "uris": facts.uris,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "notBefore": facts.not_before_s,
        "notAfter": facts.not_after_s,
        "state": state,
        "sha256": facts.sha256,
    });
    if let (Some(reason), Value::Object(members)) = (refused, &mut value) {
        members.insert("refused".to_owned(), Value::String(reason));
    }
    Ok(value)
}

fn render(value: &Value, format: Format) -> String {
    let mut text = String::new();
    match value {
        _ if format == Format::Json => text = format!("{value}\n"),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().map(|value| render(value, format)).collect();
            text = all.join("\n");
        }
        Value::Object(members) => {
            for (name, value) in members {
                let value = match value {
                    Value::String(text) => text.clone(),
                    Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                    other => other.to_string(),
                };
                // A String takes whatever is written.
                let _ = writeln!(text, "{name:<13}{value}");
            }
        }
        other => text = format!("{other}\n"),
    }
    text
}
