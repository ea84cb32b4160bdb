//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use bpi_agent_api::AskError;
use std::io::{self, Write};
use std::path::PathBuf;

use docklock::config::ConfigError;
use docklock::rerun::recipe::RecipeError;
use docklock::signer::SignerError;
use docklock::spool::SpoolError;
use docklock::task::{ErrorCode, TaskError};

use crate::output::plain;

/// Exit status of a failure.
const FAILED: u8 = 1;
/// Exit status of input that cannot be read as what it should be.
const MISUSE: u8 = 2;

/// Exit status of a run that cannot be done again here.
const CANNOT: u8 = 3;

/// Exit status of a failure of ours where other statuses are the container's.
const OF_RUN: u8 = 125;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("could not read the evidence {}: {source}; name the folder, bundle or envelope itself", path.display())]
    EvidenceRead { path: PathBuf, source: io::Error },
    #[error("{} is not evidence: {reason}", path.display())]
    EvidenceMalformed { path: PathBuf, reason: String },
    #[error("could not read the trust file {}: {source}", path.display())]
    TrustRead { path: PathBuf, source: io::Error },
    #[error("{} is not a trust file: {reason}; it has to be {{\"hosts\":[{{\"id\":…,\"publicKey\":…}}]}} or a public key in PEM", path.display())]
    TrustMalformed { path: PathBuf, reason: String },
    #[error("the policy {} cannot judge: {reason}", path.display())]
    Policy { path: PathBuf, reason: String },
    #[error("the policy {} was ended before it had judged: it may take {cpu_s} s of processor time and {memory_mib} MiB of memory", path.display())]
    PolicyLimit { path: PathBuf, cpu_s: u64, memory_mib: u64 },
    #[error("the policy data {} cannot be used: {reason}", path.display())]
    PolicyData { path: PathBuf, reason: String },
    #[error("{format} needs {what}")]
    ExportNeeds { format: &'static str, what: &'static str },
    #[error("the key {} did not sign this receipt: it is {found}, and the receipt was signed by {wanted}", path.display())]
    ExportKey { path: PathBuf, found: String, wanted: String },
    #[error("{part:?} cannot be withheld: {reason}")]
    Redact { part: String, reason: String },
    #[error("could not {deed} {}: {source}", path.display())]
    File { deed: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists already; name a folder that does not exist yet", path.display())]
    Exists { path: PathBuf },
    #[error("record {seq} of boundary {boundary} is an {kind}, not a receipt; only a receipt is evidence of a run")]
    NotAReceipt { boundary: String, seq: u64, kind: &'static str },
    #[error(
        "more than {limit} bytes of records lie between receipt {seq} of boundary {boundary} and its intent; hand over the folder of records instead"
    )]
    TooFar { boundary: String, seq: u64, limit: usize },
    #[error("could not write to standard output: {source}")]
    Stdout { source: io::Error },
    #[error("there is no profile {name:?}: {reason}")]
    Profile { name: String, reason: String },
    #[error("container {id:?} does not exist; `docklock oci list` names those there are")]
    NoSuchContainer { id: String },
    #[error("container {id:?} is {state}; {remedy}")]
    ContainerState { id: String, state: String, remedy: &'static str },
    #[error("{signal:?} is not a signal; name one (TERM, SIGKILL) or give its number from 1 to 64")]
    Signal { signal: String },
    #[error("the monitor of container {id:?} {problem}")]
    Monitor { id: String, problem: String },
    #[error(
        "the monitor of container {id:?} is gone and its container with it; `docklock oci delete {id}` removes what is left"
    )]
    MonitorGone { id: String },
    #[error("{sentence}")]
    Remote { code: String, sentence: String },
    #[error("{what} is not supported: {remedy}")]
    Unsupported { what: &'static str, remedy: &'static str },
    #[error("the container ended with status {status}, but no receipt could be made: {reason}")]
    NoReceipt { status: u32, reason: String },
    #[error("could not use the bundle's {}: {reason}", path.display())]
    Bundle { path: PathBuf, reason: String },
    #[error("--user {user:?} cannot be used: {reason}")]
    User { user: String, reason: String },
    #[error("--mount {text:?} is refused: {reason}")]
    MountArgument { text: String, reason: String },
    #[error("the series was interrupted before there was anything to compare")]
    Interrupted,
    #[error("{} is no log of decisions: {reason}", path.display())]
    Log { path: PathBuf, reason: String },
    #[error("{} is no listing of outputs: {reason}", path.display())]
    Listing { path: PathBuf, reason: String },
    #[error("{} cannot be compared: {reason}", path.display())]
    Incomparable { path: PathBuf, reason: String },
    #[error("the run cannot be done again here: {0}")]
    Recipe(#[from] RecipeError),
    #[error("the run cannot be done again here: its configuration is not at hand: {looked}; name it with --spec FILE")]
    NoConfig { looked: String },
    #[error("the run cannot be done again here: {what} is {found} here, and {wanted} in the receipt")]
    OtherGround { what: &'static str, found: String, wanted: String },
    #[error("the run cannot be done again here: {0}")]
    NoGround(String),
    #[error("{0}")]
    OfRun(Box<Failure>),
    #[error(transparent)]
    Agent(#[from] Box<AskError>),
    #[error("could not {deed}: {source}")]
    System { deed: &'static str, source: io::Error },
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Agent(Box::new(error))
    }
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Config(error) => error.code(),
            Self::Signer(error) => error.code(),
            Self::Spool(error) => error.code(),
            Self::Task(error) => task_code(error),
            Self::EvidenceRead { .. } => "DL0701",
            Self::EvidenceMalformed { .. } => "DL0702",
            Self::TrustRead { .. } => "DL0703",
            Self::TrustMalformed { .. } => "DL0704",
            Self::File { .. } => "DL0705",
            Self::Exists { .. } => "DL0706",
            Self::NotAReceipt { .. } => "DL0707",
            Self::Stdout { .. } => "DL0708",
            Self::Profile { .. } => "DL0709",
            Self::NoSuchContainer { .. } => "DL0710",
            Self::ContainerState { .. } => "DL0711",
            Self::Signal { .. } => "DL0712",
            Self::Monitor { .. } => "DL0713",
            Self::MonitorGone { .. } => "DL0718",
            Self::TooFar { .. } => "DL0719",
            Self::Remote { code, .. } => code,
            Self::Unsupported { .. } => "DL0714",
            Self::NoReceipt { .. } => "DL0715",
            Self::System { .. } => "DL0716",
            Self::Bundle { .. } => "DL0717",
            Self::User { .. } => "DL0720",
            Self::MountArgument { .. } => "DL0721",
            Self::Interrupted => "DL0722",
            Self::Incomparable { .. } => "DL0723",
            Self::Policy { .. } => "DL0724",
            Self::PolicyLimit { .. } => "DL0725",
            Self::PolicyData { .. } => "DL0726",
            Self::Agent(_) => "DL0730",
            Self::ExportNeeds { .. } => "DL0727",
            Self::ExportKey { .. } => "DL0728",
            Self::Redact { .. } => "DL0729",
            Self::Log { .. } => "DL0901",
            Self::Listing { .. } => "DL0902",
            Self::NoConfig { .. } => "DL0903",
            Self::Recipe(_) => "DL0904",
            Self::OtherGround { .. } => "DL0905",
            Self::NoGround(_) => "DL0906",
            Self::OfRun(failure) => failure.code(),
        }
    }

    /// Exit status of the process.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::EvidenceRead { .. }
            | Self::EvidenceMalformed { .. }
            | Self::TrustRead { .. }
            | Self::TrustMalformed { .. }
            | Self::Signal { .. }
            | Self::Unsupported { .. }
            | Self::Spool(SpoolError::Boundary { .. }) => MISUSE,
            Self::User { .. } | Self::MountArgument { .. } => MISUSE,
            Self::Policy { .. } | Self::PolicyLimit { .. } | Self::PolicyData { .. } => MISUSE,
            Self::ExportNeeds { .. } | Self::ExportKey { .. } | Self::Redact { .. } => MISUSE,
            Self::Log { .. } | Self::Listing { .. } | Self::Incomparable { .. } => MISUSE,
            Self::Recipe(_) | Self::NoConfig { .. } | Self::OtherGround { .. } | Self::NoGround(_) => CANNOT,
            Self::OfRun(_) => OF_RUN,
            _ => FAILED,
        }
    }

    /// The sentence on one line, safe to show.
    pub(crate) fn sentence(&self) -> String {
        plain(&self.to_string()).replace('\n', " ")
    }

    /// Tells standard error. There is nowhere left to complain if nobody reads that.
    pub(crate) fn report(&self) {
        let line = format!("docklock: {}: {}\n", self.code(), self.sentence());
        match io::stderr().write_all(line.as_bytes()) {
            Ok(()) | Err(_) => {}
        }
    }
}

/// Where the engine passes an error on, the code of its own kind; else that of the refusal.
fn task_code(error: &TaskError) -> &'static str {
    match error {
        TaskError::Signer(error) => error.code(),
        TaskError::Spool(error) => error.code(),
        TaskError::Seal(error) => error.code(),
        TaskError::Outputs(error) => error.code(),
        other => match other.code() {
            ErrorCode::NotFound => "DL0801",
            ErrorCode::AlreadyExists => "DL0802",
            ErrorCode::InvalidArgument => "DL0803",
            ErrorCode::FailedPrecondition => "DL0804",
            ErrorCode::PermissionDenied => "DL0805",
            ErrorCode::Unavailable => "DL0806",
            ErrorCode::Internal => "DL0807",
        },
    }
}
