//! A file system in memory that can lose its power between any two steps, for the tests of this module.
//!
//! It keeps what a process sees apart from what is on the medium. A file's bytes reach the medium by `write_durable`, a folder's
//! names by `sync_folder`; after a loss of power anything in between may or may not have got there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{Disk, Held};

#[derive(Clone, Debug, Default)]
struct Node {
    seen: Vec<u8>,
    on_medium: Option<Vec<u8>>,
}

/// What happens at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends before the step; a write gets half way.
    Death,
    /// The step fails with this kind of error, and the process goes on.
    Error(io::ErrorKind),
}

/// What a loss of power leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Nothing is lost: only the process died.
    Nothing,
    /// Everything that was not synced.
    Everything,
    /// Each unsynced name and content by a coin that this seed fixes.
    Some(u64),
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    medium_names: BTreeMap<PathBuf, usize>,
    steps: u32,
    fault: Option<(u32, Fault)>,
    dead: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ModelDisk(Arc<Mutex<State>>);

impl ModelDisk {
    /// Puts a fault at the `step`th change from now.
    pub(super) fn fail_at(&self, step: u32, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.steps = 0;
        state.fault = Some((step, fault));
    }

    /// True when the fault has happened.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.fault.is_some_and(|(step, _)| state.steps > step)
    }

    /// The same disk after the process died, or the power went.
    pub(super) fn restarted(&self, loss: Loss) -> Self {
        let state = self.0.lock().unwrap();
        let mut coin = Coin(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        let mut keep = |_: &Path| match loss {
            Loss::Nothing => true,
            Loss::Everything => false,
            Loss::Some(_) => coin.toss(),
        };
        let mut kept: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let all: std::collections::BTreeSet<&PathBuf> = state.names.keys().chain(state.medium_names.keys()).collect();
        for path in all {
            let source = if keep(path) { &state.names } else { &state.medium_names };
            if let Some(node) = source.get(path) {
                kept.insert(path.clone(), *node);
            }
        }
        let nodes = state
            .nodes
            .iter()
            .map(|node| {
                let bytes = match (loss, &node.on_medium) {
                    (Loss::Nothing, _) => node.seen.clone(),
                    (_, Some(bytes)) => bytes.clone(),
                    (Loss::Everything, None) => Vec::new(),
                    (Loss::Some(_), None) => node.seen[..coin.below(node.seen.len() + 1)].to_vec(),
                };
                Node { on_medium: Some(bytes.clone()), seen: bytes }
            })
            .collect();
        let state = State { nodes, medium_names: kept.clone(), names: kept, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    fn change(&self, path: &Path, torn: Option<&[u8]>) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        if state.dead {
            return Err(io::Error::other("this process has ended"));
        }
        let now = state.steps;
        state.steps += 1;
        match state.fault {
            Some((step, fault)) if step == now => {
                if let Some(bytes) = torn {
                    state.write(path, &bytes[..bytes.len() / 2]);
                }
                if fault == Fault::Death {
                    state.dead = true;
                }
                Err(match fault {
                    Fault::Death => io::Error::other("this process has ended"),
                    Fault::Error(kind) => kind.into(),
                })
            }
            _ => Ok(state),
        }
    }

    fn look(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let state = self.0.lock().unwrap();
        if state.dead { Err(io::Error::other("this process has ended")) } else { Ok(state) }
    }
}

impl State {
    /// A file that is written anew keeps its node, as O_TRUNC does.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> usize {
        let node = match self.names.get(path) {
            Some(node) => *node,
            None => {
                self.nodes.push(Node::default());
                self.names.insert(path.to_path_buf(), self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        self.nodes[node] = Node { seen: bytes.to_vec(), on_medium: None };
        node
    }
}

impl Disk for ModelDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let state = self.look()?;
        let node = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let bytes = state.nodes[*node].seen.clone();
        if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.look()?.names.contains_key(path))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.look()?;
        let names = state.names.keys().filter(|path| path.parent() == Some(folder)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(path, Some(bytes))?.write(path, bytes);
        Ok(())
    }

    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes)?;
        let mut state = self.change(path, None)?;
        let node = state.names[path];
        state.nodes[node].on_medium = Some(bytes.to_vec());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change(from, None)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(path, None)?;
        state.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.change(folder, None)?;
        state.medium_names.retain(|path, _| path.parent() != Some(folder));
        let synced: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(folder))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        state.medium_names.extend(synced);
        Ok(())
    }

    fn make_folder(&self, _: &Path) -> io::Result<()> {
        self.look().map(drop)
    }

    fn lock(&self, _: &Path) -> io::Result<Held> {
        drop(self.look()?);
        Ok(Box::new(()))
    }
}

/// A fair coin that a seed fixes: splitmix64 (Steele, Lea and Flood 2014).
struct Coin(u64);

impl Coin {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn toss(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
