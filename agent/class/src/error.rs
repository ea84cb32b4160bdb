//! What can be wrong with a class, and which of it ends the process.

use std::path::PathBuf;

/// Why something was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// A URL of no kind that is known here.
    #[error("{url:?} is no database: it has to be sqlite:PATH or postgres://…")]
    Url {
        /// As given, without a password.
        url: String,
    },
    /// The folder or the file of a database.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not open.
    #[error("the database does not open: {source}")]
    Open {
        /// Why.
        source: Box<sqlx::Error>,
    },
    /// There is one writer.
    #[error("another process writes to {database}")]
    Taken {
        /// Which.
        database: String,
    },
    /// What is acknowledged would not survive the server.
    #[error("the PostgreSQL server runs with fsync = off, so nothing in it is durable")]
    NotDurable,
    /// Another version's tables, or tables that do not come into being.
    #[error("the tables are not those of this version: {source}")]
    Tables {
        /// Why.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// A write that may or may not have become durable. The process has to end: what it holds in memory is no longer what is on disk.
    #[error(
        "it is not known whether this is kept: {doing}: {source}; the process ends, and what is on disk counts when it starts again"
    )]
    Write {
        /// What.
        doing: &'static str,
        /// Why.
        source: Box<sqlx::Error>,
    },
    /// A read that failed.
    #[error("{doing}: {source}")]
    Read {
        /// What.
        doing: &'static str,
        /// Why.
        source: Box<sqlx::Error>,
    },
    /// It is there already. Nothing was changed.
    #[error("{doing}: it is there already: {constraint}")]
    Twice {
        /// What.
        doing: &'static str,
        /// What has to be unique.
        constraint: String,
    },
    /// A batch that does not go on where the last one ended. Nothing was changed.
    #[error("the records of {boundary} are in batches up to {next_seq}, so a batch cannot begin at {first_seq}")]
    Cursor {
        /// Whose.
        boundary: String,
        /// What comes next.
        next_seq: u64,
        /// What was given.
        first_seq: u64,
    },
    /// A batch or what belongs to it that is not as it has to be. Nothing was changed.
    #[error("{field} is {found} and has to be {wanted}")]
    Value {
        /// What.
        field: &'static str,
        /// As given.
        found: u64,
        /// The limit, or the one value that it may have.
        wanted: u64,
    },
    /// A batch that is not here.
    #[error("there is no batch {}", hex::encode(da_root))]
    Unknown {
        /// Its `da_root`.
        da_root: [u8; 32],
    },
    /// What this program cannot have written.
    #[error("the database is not what was written: {field} of table {table} is {found}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What.
        field: &'static str,
        /// As it stands there.
        found: String,
    },
    /// Incidents that were changed.
    #[error("incident {id} does not follow from what is before it: incidents were changed")]
    Incidents {
        /// The first that does not.
        id: u64,
    },
    /// A snapshot that is none, or of which something is missing.
    #[error("{} is no whole snapshot: line {line}: {reason}", path.display())]
    Snapshot {
        /// Which.
        path: PathBuf,
        /// Where.
        line: u64,
        /// Why.
        reason: &'static str,
    },
    /// A snapshot goes into an empty class only.
    #[error("a snapshot is restored into an empty class, and table {table} holds {rows} rows")]
    NotEmpty {
        /// Which.
        table: &'static str,
        /// How many.
        rows: u64,
    },
}

impl ClassError {
    /// True when the process has to end before it says or does anything else: nothing tells whether what it wrote is durable.
    pub fn ends_the_process(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

/// Makes a [`ClassError::Read`].
pub(crate) fn read(doing: &'static str) -> impl Fn(sqlx::Error) -> ClassError {
    move |source| ClassError::Read { doing, source: Box::new(source) }
}

/// Makes a [`ClassError::Write`], or a [`ClassError::Twice`] of what a constraint refused: that is rolled back, and known to be.
pub(crate) fn write(doing: &'static str) -> impl Fn(sqlx::Error) -> ClassError {
    move |source| match &source {
        sqlx::Error::Database(refused) if refused.is_unique_violation() => {
            ClassError::Twice { doing, constraint: refused.message().to_owned() }
        }
        _ => ClassError::Write { doing, source: Box::new(source) },
    }
}
