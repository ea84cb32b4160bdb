//! The one place where SQLite and PostgreSQL differ: how they are opened, how a transaction begins, how a placeholder is spelt.
//!
//! Always true: one connection writes, whose transactions do not overlap, and no other process writes to the same database; a commit is on disk
//! when it returns (SQLite: WAL with synchronous = FULL; PostgreSQL: synchronous_commit). Absent on purpose: pooling by the thousand, retries.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyPoolOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyPool, AssertSqlSafe, Row, Transaction};

use crate::error::{ClassError, read, write};

/// Readers beside the writer.
const READERS: u32 = 4;
/// How long a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How often the lock of a PostgreSQL database is asked for: for 3 s.
const LOCK_TRIES: u32 = 30;
/// How long between.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Rows of one statement, at most: with the 20 columns of the widest table far below the 32 766 parameters of SQLite.
const ROWS: usize = 128;
/// The advisory lock that says "a writer is here" within a PostgreSQL database: "bpi-clas" as a number.
const WRITER: &str = "SELECT pg_try_advisory_lock(7093285056771023219)";

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Dialect {
    /// How a writing transaction begins: SQLite's takes the lock at once, since one that turns from reading to writing may be refused.
    fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// How one begins that sees one state throughout.
    fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN DEFERRED",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(Option<i64>),
    Text(String),
    Bytes(Option<Vec<u8>>),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Text,
    Bytes,
}

impl Value {
    pub(crate) fn bind<'q>(self, query: Query<'q, Any, AnyArguments>) -> Query<'q, Any, AnyArguments> {
        match self {
            Self::Number(number) => query.bind(number),
            Self::Text(text) => query.bind(text),
            Self::Bytes(bytes) => query.bind(bytes),
        }
    }

    pub(crate) fn of(row: &AnyRow, at: usize, kind: Kind) -> Result<Self, sqlx::Error> {
        Ok(match kind {
            Kind::Number => Self::Number(row.try_get(at)?),
            Kind::Text => Self::Text(row.try_get(at)?),
            Kind::Bytes => Self::Bytes(row.try_get(at)?),
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}

/// The database.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dialect: Dialect,
    writer: AnyPool,
    readers: AnyPool,
    /// Held as long as the file may be written to.
    _lock: Option<File>,
}

impl Store {
    pub(crate) async fn open(url: &str) -> Result<Self, ClassError> {
        sqlx::any::install_default_drivers();
        match url.split_once(':') {
            Some(("sqlite", path)) if !path.trim_start_matches('/').is_empty() => {
                Self::open_sqlite(Path::new(path.strip_prefix("//").unwrap_or(path))).await
            }
            Some(("postgres" | "postgresql", _)) => Self::open_postgres(url).await,
            _ => Err(ClassError::Url { url: without_password(url) }),
        }
    }

    async fn open_sqlite(path: &Path) -> Result<Self, ClassError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| ClassError::File { path, source }
        };
        let path = std::path::absolute(path).map_err(file_error(path))?;
        let lock = take_lock(&path)?;
        let is_new = !path.exists();
        // SQLite gives its log the mode of the database. Keyslots are in there: nobody else may read them.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(file_error(&path))?;
        if is_new {
            let folder = path.parent().unwrap_or(Path::new("/"));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(file_error(folder))?;
        }
        let url = format!("sqlite://{}", escaped(&path));
        let pool = |connections, cache: &'static str| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        // secure_delete: what a revoked keyslot held is overwritten, not only forgotten.
                        for pragma in [
                            "PRAGMA busy_timeout = 10000",
                            "PRAGMA journal_mode = WAL",
                            "PRAGMA synchronous = FULL",
                            "PRAGMA foreign_keys = ON",
                            "PRAGMA secure_delete = ON",
                            // Digests are at random places of their indexes: a batch changes some thousand pages, which are written into the
                            // file once in 64 MiB of log and not after each batch.
                            "PRAGMA wal_autocheckpoint = 16384",
                            cache,
                        ] {
                            sqlx::query(pragma).execute(&mut *connection).await?;
                        }
                        Ok(())
                    })
                },
            )
        };
        let opened = |source| ClassError::Open { source: Box::new(source) };
        let writer = pool(1, "PRAGMA cache_size = -65536").connect(&url).await.map_err(opened)?;
        let readers = pool(READERS, "PRAGMA cache_size = -8192").connect(&url).await.map_err(opened)?;
        Ok(Self { dialect: Dialect::Sqlite, writer, readers, _lock: Some(lock) })
    }

    async fn open_postgres(url: &str) -> Result<Self, ClassError> {
        let opened = |source| ClassError::Open { source: Box::new(source) };
        let options = |connections| AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
        // The lock lasts as long as its connection, so that connection may not be given up for being idle or old.
        let writer =
            options(1).min_connections(1).idle_timeout(None).max_lifetime(None).connect(url).await.map_err(opened)?;
        let setting = |name: &'static str| {
            let writer = &writer;
            async move {
                sqlx::query(name).fetch_one(writer).await.and_then(|row| row.try_get::<String, _>(0)).map_err(opened)
            }
        };
        if setting("SELECT current_setting('fsync')").await? != "on" {
            return Err(ClassError::NotDurable);
        }
        if setting("SELECT current_setting('synchronous_commit')").await? == "off" {
            sqlx::query("SET synchronous_commit = on").execute(&writer).await.map_err(opened)?;
        }
        // A server notices after a moment that a client is gone, and a killed agent is started again at once.
        let mut tries = 0;
        while !sqlx::query(WRITER).fetch_one(&writer).await.and_then(|row| row.try_get(0)).map_err(opened)? {
            tries += 1;
            if tries == LOCK_TRIES {
                return Err(ClassError::Taken { database: without_password(url) });
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let readers = options(READERS).connect(url).await.map_err(opened)?;
        Ok(Self { dialect: Dialect::Postgres, writer, readers, _lock: None })
    }

    pub(crate) fn writer(&self) -> &AnyPool {
        &self.writer
    }

    pub(crate) fn readers(&self) -> &AnyPool {
        &self.readers
    }

    pub(crate) async fn begin(&self, doing: &'static str) -> Result<Transaction<'static, Any>, ClassError> {
        self.writer.begin_with(self.dialect.begin()).await.map_err(write(doing))
    }

    pub(crate) async fn begin_snapshot(&self, doing: &'static str) -> Result<Transaction<'static, Any>, ClassError> {
        self.readers.begin_with(self.dialect.begin_snapshot()).await.map_err(read(doing))
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Inserts rows by statements of 128, 64, … 1 of them, so that eight prepared statements serve any number. `conflict` is the end of each.
    pub(crate) async fn insert(
        &self,
        transaction: &mut Transaction<'static, Any>,
        (table, columns): (&'static str, &[&'static str]),
        conflict: &'static str,
        rows: Vec<Vec<Value>>,
        doing: &'static str,
    ) -> Result<u64, ClassError> {
        let (mut left, mut inserted) = (rows.len(), 0);
        let mut rows = rows.into_iter();
        while left > 0 {
            let count = ROWS.min(1 << left.ilog2());
            left -= count;
            let sql = self.insert_sql(table, columns, count, conflict);
            // Of names that are constants of this crate, and placeholders.
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for value in rows.by_ref().take(count).flatten() {
                query = value.bind(query);
            }
            inserted += query.execute(&mut **transaction).await.map_err(write(doing))?.rows_affected();
        }
        Ok(inserted)
    }

    fn insert_sql(&self, table: &str, columns: &[&str], count: usize, conflict: &str) -> String {
        let mut sql = format!("INSERT INTO {table} ({}) VALUES ", columns.join(", "));
        let mut number = 0;
        for row in 0..count {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..columns.len() {
                number += 1;
                sql.push_str(if column == 0 { "" } else { ", " });
                match self.dialect {
                    // A named parameter is found by going through all of them: 1 152 of them would be looked through 1 152 times.
                    Dialect::Sqlite => sql.push('?'),
                    Dialect::Postgres => sql.push_str(&format!("${number}")),
                }
            }
            sql.push(')');
        }
        sql + conflict
    }
}

fn take_lock(database: &Path) -> Result<File, ClassError> {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let path = database.with_file_name(name);
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| ClassError::File { path, source }
    };
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ClassError::Taken { database: database.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(failed(&path)(source)),
    }
}

/// A path as it stands in a URL.
fn escaped(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(*byte)),
            other => out.push_str(&format!("%{other:02x}")),
        }
    }
    out
}

/// A URL without what stands between its scheme and the host.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_told() {
        assert_eq!(without_password("postgres://me:pw@host/db"), "postgres://host/db");
        assert_eq!(without_password("mysql:x"), "mysql:x");
    }

    #[test]
    fn a_path_of_any_characters_is_a_url() {
        assert_eq!(escaped(Path::new("/a b/c?d#e%f")), "/a%20b/c%3fd%23e%25f");
    }
}
