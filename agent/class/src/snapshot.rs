//! A class as one file, which restores into either database.
//!
//! ```text
//! {"format":"bpi class-snapshot","version":1,"created_ms":…,"tables":{"batches":["number",…],…}}
//! ["batches",1,"<hex>","k8s.io",…]                 a row: its table, and its columns in the order above; bytes in hex
//! …
//! {"lines":N,"sha256":"<hex of all bytes before>"}
//! ```
//!
//! Always true: a snapshot is one state of the class, whatever is written meanwhile; it appears under its name when it is whole and durable; nothing of
//! a file goes into a class before all of it is read and its digest agrees. Absent on purpose: encryption (slots are wrapped), increments.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Row};

use crate::error::{read, write};
use crate::store::{Kind, Value};
use crate::{Class, ClassError, Hash};

const FORMAT: &str = "bpi class-snapshot";
const VERSION: u64 = 1;
/// Bytes of a line, at most: a row holds two proofs of at most 1 MiB, in hex.
const LINE_BYTES_MAX: u64 = 5 << 20;
/// Rows that are inserted at a time.
const ROWS: usize = 1024;
/// Bytes that are written at a time.
const CHUNK: usize = 1 << 20;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of all but its last line.
    pub sha256: Hash,
}

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    order: &'static str,
}

use Kind::{Bytes, Number, Text};

/// All tables, those that others refer to first.
const TABLES: [Table; 9] = [
    Table {
        name: "batches",
        columns: &[
            ("number", Number),
            ("tenant", Bytes),
            ("boundary", Text),
            ("first_seq", Number),
            ("last_seq", Number),
            ("da_root", Bytes),
            ("k", Number),
            ("n", Number),
            ("length", Number),
            ("receipts", Number),
            ("receipts_root", Bytes),
            ("root_cid", Text),
            ("sealed_sha256", Bytes),
            ("created_ms", Number),
            ("state", Text),
            ("included", Number),
            ("attested_height", Number),
            ("final_height", Number),
            ("attestation", Bytes),
            ("inclusion", Bytes),
        ],
        order: "number",
    },
    Table {
        name: "acknowledgements",
        columns: &[("da_root", Bytes), ("pinner", Bytes), ("bytes", Bytes)],
        order: "da_root, pinner",
    },
    Table {
        name: "cid_map",
        columns: &[
            ("boundary", Text),
            ("seq", Number),
            ("batch", Number),
            ("position", Number),
            ("cid", Text),
            ("kind", Text),
            ("container_id", Text),
            ("leaf", Bytes),
        ],
        order: "boundary, seq",
    },
    Table { name: "sealed_headers", columns: &[("height", Number), ("bytes", Bytes)], order: "height" },
    Table { name: "inclusions", columns: &[("leaf", Bytes), ("height", Number), ("bytes", Bytes)], order: "leaf" },
    Table {
        name: "keyslots",
        columns: &[("da_root", Bytes), ("reader", Text), ("wrapped", Bytes), ("revoked_ms", Number)],
        order: "da_root, reader",
    },
    Table {
        name: "sbom_signers",
        columns: &[
            ("key_id", Text),
            ("public_key_pem", Text),
            ("name", Text),
            ("added_ms", Number),
            ("removed_ms", Number),
        ],
        order: "key_id",
    },
    Table {
        name: "cursors",
        columns: &[("boundary", Text), ("next_seq", Number), ("digest", Bytes)],
        order: "boundary",
    },
    Table {
        name: "incidents",
        columns: &[
            ("id", Number),
            ("time_ms", Number),
            ("what", Text),
            ("kind", Text),
            ("boundary", Text),
            ("container_id", Text),
            ("detail", Text),
            ("previous", Bytes),
            ("digest", Bytes),
        ],
        order: "id",
    },
];

impl Table {
    fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }
}

fn to_json(value: Value) -> Json {
    match value {
        Value::Number(number) => number.map_or(Json::Null, Json::from),
        Value::Text(text) => Json::String(text),
        Value::Bytes(bytes) => bytes.map_or(Json::Null, |bytes| Json::String(hex::encode(bytes))),
    }
}

fn from_json(json: Json, kind: Kind) -> Option<Value> {
    Some(match (kind, json) {
        (Kind::Number, Json::Null) => Value::Number(None),
        (Kind::Number, Json::Number(number)) => Value::Number(Some(number.as_i64()?)),
        (Kind::Text, Json::String(text)) => Value::Text(text),
        (Kind::Bytes, Json::Null) => Value::Bytes(None),
        (Kind::Bytes, Json::String(text)) => Value::Bytes(Some(hex::decode(text).ok()?)),
        _ => return None,
    })
}

/// A file that is written beside its name, and gets it when it is whole.
struct Draft {
    path: PathBuf,
    beside: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    sha256: Sha256,
    bytes: u64,
}

impl Draft {
    fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> ClassError {
        let path = path.to_owned();
        move |source| ClassError::File { path, source }
    }

    fn begin(path: &Path) -> Result<Self, ClassError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let beside = path.with_file_name(name);
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside);
        let file = Some(file.map_err(Self::failed(&beside))?);
        Ok(Self { path: path.to_owned(), beside, file, buffer: Vec::new(), sha256: Sha256::new(), bytes: 0 })
    }

    async fn line(&mut self, json: &Json) -> Result<(), ClassError> {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(json.to_string().as_bytes());
        self.buffer.push(b'\n');
        self.sha256.update(&self.buffer[begin..]);
        match self.buffer.len() >= CHUNK {
            true => self.flush(false).await,
            false => Ok(()),
        }
    }

    /// Writes what is waiting, outside of the runtime's threads.
    async fn flush(&mut self, and_sync: bool) -> Result<(), ClassError> {
        let (buffer, file) = (std::mem::take(&mut self.buffer), self.file.take());
        self.bytes += buffer.len() as u64;
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.ok_or(std::io::ErrorKind::BrokenPipe)?;
            file.write_all(&buffer)?;
            if and_sync {
                file.sync_all()?;
            }
            Ok(file)
        });
        let file = written.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
        self.file = Some(file.map_err(Self::failed(&self.beside))?);
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, ClassError> {
        self.flush(true).await?;
        std::fs::rename(&self.beside, &self.path).map_err(Self::failed(&self.path))?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Self::failed(folder))?;
        Ok(self.bytes)
    }
}

impl Class {
    /// Writes all of it to a file, as it is at one moment. Writers do not wait.
    ///
    /// # Errors
    /// [`ClassError`] when it cannot be read or written; then there is no file of that name, or the one that was there before.
    pub async fn snapshot(&self, path: &Path, now_ms: u64) -> Result<Snapshot, ClassError> {
        const DOING: &str = "taking a snapshot";
        let mut draft = Draft::begin(path)?;
        let tables: BTreeMap<_, _> = TABLES.iter().map(|table| (table.name, table.names())).collect();
        let head = serde_json::json!({ "format": FORMAT, "version": VERSION, "created_ms": now_ms, "tables": tables });
        draft.line(&head).await?;
        let mut transaction = self.store.begin_snapshot(DOING).await?;
        let mut count = 0;
        for table in &TABLES {
            let sql = format!("SELECT {} FROM {} ORDER BY {}", table.names().join(", "), table.name, table.order);
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await.map_err(read(DOING))? {
                let mut line = vec![Json::from(table.name)];
                for (at, (_, kind)) in table.columns.iter().enumerate() {
                    line.push(to_json(Value::of(&row, at, *kind).map_err(read(DOING))?));
                }
                draft.line(&Json::Array(line)).await?;
                count += 1;
            }
        }
        transaction.rollback().await.map_err(read(DOING))?;
        let sha256: Hash = draft.sha256.clone().finalize().into();
        draft.line(&serde_json::json!({ "lines": count + 1, "sha256": hex::encode(sha256) })).await?;
        Ok(Snapshot { rows: count, bytes: draft.finish().await?, sha256 })
    }

    /// Puts all of a snapshot into an empty class, at once, and checks the chain of incidents.
    ///
    /// # Errors
    /// [`ClassError::Snapshot`] for a file that is not whole, [`ClassError::NotEmpty`]: both change nothing. [`ClassError::Write`] ends the process.
    pub async fn restore(&self, path: &Path) -> Result<Snapshot, ClassError> {
        const DOING: &str = "restoring a snapshot";
        let snapshot = check(path)?;
        let mut transaction = self.store.begin(DOING).await?;
        for table in &TABLES {
            let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {}", table.name));
            let row = sqlx::query(sql).fetch_one(&mut *transaction).await.map_err(write(DOING))?;
            let rows: i64 = row.try_get(0).map_err(write(DOING))?;
            if rows > 0 {
                return Err(ClassError::NotEmpty { table: table.name, rows: rows as u64 });
            }
        }
        let mut lines = Lines::open(path)?;
        lines.next()?;
        let mut waiting: Option<(&'static Table, Vec<Vec<Value>>)> = None;
        for _ in 0..snapshot.rows {
            let Some(line) = lines.next()? else { return Err(lines.refused("the file ends")) };
            let (table, row) = row_of(&line).ok_or_else(|| lines.refused("no row"))?;
            match &mut waiting {
                Some((of, rows)) if std::ptr::eq(*of, table) && rows.len() < ROWS => rows.push(row),
                _ => {
                    if let Some((table, rows)) = waiting.replace((table, vec![row])) {
                        self.store.insert(&mut transaction, (table.name, &table.names()), "", rows, DOING).await?;
                    }
                }
            }
        }
        if let Some((table, rows)) = waiting {
            self.store.insert(&mut transaction, (table.name, &table.names()), "", rows, DOING).await?;
        }
        transaction.commit().await.map_err(write(DOING))?;
        self.check_incidents().await?;
        Ok(snapshot)
    }
}

fn row_of(line: &[u8]) -> Option<(&'static Table, Vec<Value>)> {
    let Json::Array(values) = serde_json::from_slice(line).ok()? else { return None };
    let mut values = values.into_iter();
    let name = values.next()?;
    let table = TABLES.iter().find(|table| Some(table.name) == name.as_str())?;
    if values.len() != table.columns.len() {
        return None;
    }
    let row = values.zip(table.columns).map(|(json, (_, kind))| from_json(json, *kind)).collect::<Option<_>>()?;
    Some((table, row))
}

/// The lines of a file, none longer than it may be.
struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    number: u64,
    bytes: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ClassError> {
        let file = File::open(path).map_err(Draft::failed(path))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(CHUNK, file), number: 0, bytes: 0 })
    }

    fn refused(&self, reason: &'static str) -> ClassError {
        ClassError::Snapshot { path: self.path.clone(), line: self.number, reason }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, ClassError> {
        let mut line = Vec::new();
        let read =
            (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(Draft::failed(&self.path))?;
        self.number += 1;
        self.bytes += read as u64;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) => Err(self.refused("a line without an end, or of more than 5 MiB")),
        }
    }
}

/// Reads a file from begin to end: what it says of itself, and that each row can be one.
fn check(path: &Path) -> Result<Snapshot, ClassError> {
    let mut lines = Lines::open(path)?;
    let mut sha256 = Sha256::new();
    let head = lines.next()?.ok_or_else(|| lines.refused("the file is empty"))?;
    let said: Json = serde_json::from_slice(&head).map_err(|_| lines.refused("the first line is no JSON"))?;
    if said["format"] != FORMAT || said["version"] != VERSION {
        return Err(lines.refused("it is of another format or version"));
    }
    for table in &TABLES {
        if said["tables"][table.name] != serde_json::json!(table.names()) {
            return Err(lines.refused("its tables have other columns"));
        }
    }
    sha256.update(&head);
    let mut rows = 0;
    loop {
        let line = lines.next()?.ok_or_else(|| lines.refused("the last line, with the digest, is missing"))?;
        if line.starts_with(b"{") {
            let end: Json = serde_json::from_slice(&line).map_err(|_| lines.refused("the last line is no JSON"))?;
            let sha256: Hash = sha256.finalize().into();
            if end["lines"] != rows + 1 || end["sha256"] != hex::encode(sha256) {
                return Err(lines.refused("the digest is another: it was changed or cut"));
            }
            return match lines.next()? {
                None => Ok(Snapshot { rows, bytes: lines.bytes, sha256 }),
                Some(_) => Err(lines.refused("something follows the digest")),
            };
        }
        row_of(&line).ok_or_else(|| lines.refused("no row"))?;
        sha256.update(&line);
        rows += 1;
    }
}
