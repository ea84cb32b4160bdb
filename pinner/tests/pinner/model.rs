//! A file system and a table in memory that can lose their power between any two steps.
//!
//! What a process sees is kept apart from what is on the medium. A file's bytes reach the medium by `sync_file`, a folder's names by `sync_folder`, a row by
//! its write; after a loss of power anything in between may or may not have got there, page by page and name by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bpi_pinner::disk::{Deed, Disk, DiskError, Span};
use bpi_pinner::table::{Row, Table, TableError, Write};

const PAGE: usize = 512;

#[derive(Clone, Debug, Default)]
struct Node {
    seen: Vec<u8>,
    medium: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before the step, or in the middle of it.
    Death,
    /// The step fails, and the process goes on.
    Error(i32),
}

/// What a loss of power leaves.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing is lost: only the process died.
    Nothing,
    /// Everything that was not synced.
    Everything,
    /// Each page, name and row in between by a coin that this seed fixes.
    Some(u64),
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    medium_names: BTreeMap<PathBuf, usize>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows of a write that was not answered.
    half: Vec<Write>,
    steps: u32,
    fault: Option<(u32, Fault)>,
    /// Only steps of this kind count.
    only: Option<Deed>,
    dead: bool,
}

/// The disk, and the table on it.
#[derive(Clone, Debug, Default)]
pub struct Model(Arc<Mutex<State>>);

struct Coin(u64);

impl Coin {
    /// Splitmix64 (Steele, Lea and Flood 2014).
    fn toss(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}

impl Model {
    /// Puts a fault at the `step`th change from now.
    pub fn fail_at(&self, step: u32, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        (state.steps, state.fault, state.only) = (0, Some((step, fault)), None);
    }

    /// Puts a fault at the `step`th change of a kind from now.
    pub fn fail_at_deed(&self, deed: Deed, step: u32, fault: Fault) {
        self.fail_at(step, fault);
        self.0.lock().unwrap().only = Some(deed);
    }

    pub fn has_failed(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.fault.is_some_and(|(step, _)| state.steps > step)
    }

    /// The same disk after the process died, or the power went.
    pub fn restarted(&self, loss: Loss) -> Self {
        let state = self.0.lock().unwrap();
        let mut coin = Coin(if let Loss::Some(seed) = loss { seed } else { 0 });
        let mut keep = || match loss {
            Loss::Nothing => true,
            Loss::Everything => false,
            Loss::Some(_) => coin.toss(),
        };
        let mut names = BTreeMap::new();
        let all: BTreeSet<&PathBuf> = state.names.keys().chain(state.medium_names.keys()).collect();
        for path in all {
            let source = if keep() { &state.names } else { &state.medium_names };
            source.get(path).map(|node| names.insert(path.clone(), *node));
        }
        let mut nodes = Vec::new();
        for node in &state.nodes {
            let length = if keep() { node.seen.len() } else { node.medium.len() };
            let mut bytes = vec![0; length];
            for begin in (0..length).step_by(PAGE) {
                let source = if keep() { &node.seen } else { &node.medium };
                let end = length.min(begin + PAGE).min(source.len());
                if begin < end {
                    bytes[begin..end].copy_from_slice(&source[begin..end]);
                }
            }
            nodes.push(Node { medium: bytes.clone(), seen: bytes });
        }
        let mut rows = state.rows.clone();
        if keep() {
            apply(&mut rows, &state.half);
        }
        let state = State { nodes, medium_names: names.clone(), names, rows, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    /// Changes a file behind everybody's back. An empty one goes.
    pub fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock().unwrap();
        let node = state.names[path];
        change(&mut state.nodes[node].seen);
        if state.nodes[node].seen.is_empty() {
            state.names.remove(path);
        }
    }

    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        state.nodes[state.names[path]].seen.clone()
    }

    /// Changes a row behind everybody's back.
    pub fn rot_row(&self, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        change(self.0.lock().unwrap().rows.get_mut(key).unwrap());
    }

    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.0.lock().unwrap();
        if state.dead { Err(io::Error::other("this process has ended")) } else { Ok(state) }
    }

    /// One step. The flag says that the process dies in it: half of it may be done.
    fn step(&self, deed: Deed) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.look()?;
        let counts = state.only.is_none_or(|only| only == deed);
        let now = state.steps;
        state.steps += u32::from(counts);
        match state.fault {
            Some((step, fault)) if step == now && counts => match fault {
                Fault::Death => {
                    state.dead = true;
                    Ok((state, true))
                }
                Fault::Error(number) => Err(io::Error::from_raw_os_error(number)),
            },
            _ => Ok((state, false)),
        }
    }

    fn change(
        &self,
        deed: Deed,
        path: &Path,
        change: impl FnOnce(&mut State) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        let done = || {
            let (mut state, dies) = self.step(deed)?;
            if dies { Err(io::Error::other("this process has ended")) } else { change(&mut state) }
        };
        done().map_err(|source| DiskError { deed, path: path.to_path_buf(), source })
    }
}

fn apply(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: &[Write]) {
    for (key, value) in writes {
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
}

impl Disk for Model {
    fn read_at(&self, path: &Path, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, DiskError> {
        let state = self.look().map_err(|source| DiskError { deed: Deed::Read, path: path.to_path_buf(), source })?;
        let Some(node) = state.names.get(path) else { return Ok(None) };
        let bytes = &state.nodes[*node].seen;
        let span =
            |span: &Span| bytes.get(span.offset as usize..span.offset as usize + span.length).map(<[u8]>::to_vec);
        Ok(spans.iter().map(span).collect())
    }

    fn read_whole(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        let state = self.look().map_err(|source| DiskError { deed: Deed::Read, path: path.to_path_buf(), source })?;
        Ok(state.nodes[state.names[path]].seen.clone())
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, DiskError> {
        let state = self.look().map_err(|source| DiskError { deed: Deed::Read, path: folder.to_path_buf(), source })?;
        let names = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let written = || {
            let (mut state, dies) = self.step(Deed::Write)?;
            let bytes = if dies { &bytes[..bytes.len() / 2] } else { bytes };
            let node = match state.names.get(path) {
                Some(node) => *node,
                None => {
                    let node = state.nodes.len();
                    state.nodes.push(Node::default());
                    state.names.insert(path.to_path_buf(), node);
                    node
                }
            };
            let (seen, offset) = (&mut state.nodes[node].seen, offset as usize);
            seen.resize(seen.len().max(offset + bytes.len()), 0);
            seen[offset..offset + bytes.len()].copy_from_slice(bytes);
            if dies { Err(io::Error::other("this process has ended")) } else { Ok(()) }
        };
        written().map_err(|source| DiskError { deed: Deed::Write, path: path.to_path_buf(), source })
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        self.change(Deed::SyncFile, path, |state| {
            let node = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            state.nodes[node].medium = state.nodes[node].seen.clone();
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), DiskError> {
        self.change(Deed::SyncFolder, folder, |state| {
            state.medium_names.retain(|path, _| path.parent() != Some(folder));
            let synced: Vec<_> = state
                .names
                .iter()
                .filter(|(path, _)| path.parent() == Some(folder))
                .map(|(path, node)| (path.clone(), *node))
                .collect();
            state.medium_names.extend(synced);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.change(Deed::Rename, from, |state| {
            let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_path_buf(), node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.change(Deed::Remove, path, |state| {
            state.names.remove(path);
            Ok(())
        })
    }

    fn make_folder(&self, folder: &Path) -> Result<(), DiskError> {
        self.look().map(drop).map_err(|source| DiskError { deed: Deed::MakeFolder, path: folder.to_path_buf(), source })
    }

    fn free_bytes(&self, _: &Path) -> Result<u64, DiskError> {
        Ok(1 << 40)
    }
}

fn table_error(reason: &str) -> TableError {
    TableError::Store { deed: "write to", path: "model".into(), reason: reason.to_owned() }
}

impl Table for Model {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.look().map_err(|_| table_error("ended"))?.rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], count_max: usize) -> Result<Vec<Row>, TableError> {
        let state = self.look().map_err(|_| table_error("ended"))?;
        let rows = state.rows.range(from.max(prefix).to_vec()..).take(count_max);
        Ok(rows
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, writes: &[Write]) -> Result<(), TableError> {
        // It is a sync of its own, which may have been done or not when the process dies in it.
        let (mut state, dies) = self.step(Deed::SyncFile).map_err(|error| table_error(&error.to_string()))?;
        if dies {
            state.half = writes.to_vec();
            return Err(table_error("ended"));
        }
        apply(&mut state.rows, writes);
        Ok(())
    }
}
