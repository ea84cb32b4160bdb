//! A program's first moment: its vDSO is patched, its random bytes are the plan's, before its first instruction.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::stat::{fstat, major};
use nix::unistd::Pid;

use super::counts::{Counters, Counts};
use super::guest;
use super::model::vdso::{Patch, patches};
use super::task::TaskId;
use super::{Engine, EngineError};
use crate::kernel::tracee;

/// Most bytes of a vDSO image: the kernel's has two or three pages.
const VDSO_BYTES_MAX: usize = 64 * 1024;
const PAGE_BYTES: usize = 4096;
/// Bytes of an entry of the auxiliary vector: type and value (getauxval(3)).
const AUX_BYTES: usize = 16;

/// The patch for this kernel's vDSO: the same for every program.
#[derive(Debug, Default)]
pub(super) struct VdsoPatches {
    known: Option<Patch>,
}

/// What was seen of the program's own ways round the system calls.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Two kinds of code that nothing here controls were not looked for in this run.
    pub unscanned_code: bool,
}

impl Findings {
    /// The status of each source that the engine knows of (`protocol::claim`).
    pub(super) fn sources(&self, counts: &Counts, counters: &Counters) -> BTreeMap<String, String> {
        let exercised = |used: bool| if used { "controlled" } else { "not-exercised" };
        let random = counts.of(&[libc::SYS_getrandom]) + counters.execs > 0;
        [
            ("clock", "controlled"),
            ("cpuid", "pinned"),
            ("entropy", exercised(random)),
            ("file-metadata", "controlled"),
            ("pids", "controlled"),
            // A name is judged by its text: `//proc`, a `..` and a symbolic link lead past it to the host's files.
            ("procfs", "uncontrolled"),
            // Nobody has looked whether the program's code holds the instruction.
            ("rdrand", "uncontrolled"),
            ("rdtsc", exercised(counters.tsc > 0)),
            ("rlimits", "controlled"),
            ("scheduling", if counters.escapes == 0 { "controlled" } else { "uncontrolled" }),
            ("sysinfo", "controlled"),
        ]
        .into_iter()
        .map(|(name, status)| (name.to_owned(), status.to_owned()))
        .collect()
    }
}

impl Engine {
    /// The first program begins: from here on everything is decided and recorded.
    pub(super) fn begin(&mut self, id: TaskId) -> Result<(), EngineError> {
        self.started = true;
        for number in 0..3 {
            let Some(fd) = self.descriptor(id, number) else { continue };
            let stat =
                fstat(&fd).map_err(|errno| EngineError::Edge { deed: "look at a stream", source: errno.into() })?;
            let kind = guest::kind(&stat);
            // A device such as /dev/null is no way out; a terminal's slave is.
            if matches!(kind, libc::S_IFREG | libc::S_IFDIR) || (kind == libc::S_IFCHR && major(stat.st_rdev) == 1) {
                continue;
            }
            self.outside.push((stat.st_dev, stat.st_ino));
            self.outside_input |= number == 0;
            if kind == libc::S_IFCHR {
                self.escape("a terminal is attached: what is typed into it and when is not controlled".to_owned());
            }
        }
        self.look_at_outside_input(id);
        Ok(())
    }

    /// Once the writer of standard input has closed it no read waits for it any more, so none needs a look. When that is seen decides nothing.
    pub(super) fn look_at_outside_input(&mut self, id: TaskId) {
        if self.outside_input
            && let Some(fd) = self.descriptor(id, 0)
            && self.leads_outside(&fd)
            && tracee::is_hung_up(fd.as_fd())
        {
            self.outside_input = false;
        }
    }

    /// Furnishes a program that was just loaded.
    pub(super) fn furnish_program(&mut self, pid: Pid) -> Result<(), EngineError> {
        let edge = EngineError::edge("read the auxiliary vector");
        let auxiliary = guest::auxiliary_vector(pid).map_err(edge)?;
        let memory = guest::memory(pid).map_err(EngineError::edge("open a program's memory"))?;
        let value = |wanted: u64| {
            auxiliary
                .chunks_exact(AUX_BYTES)
                .find_map(|entry| (super::calls::word(entry, 0) == wanted).then(|| super::calls::word(entry, 8)))
        };
        if let Some(address) = value(libc::AT_RANDOM) {
            let bytes = self.random.at_random();
            memory.write_all_at(&bytes, address).map_err(EngineError::edge("write a program's random bytes"))?;
        }
        let Some(base) = value(libc::AT_SYSINFO_EHDR) else { return Ok(()) };
        let patch = match &self.vdso.known {
            Some(patch) => patch,
            None => self.vdso.known.insert(whole_patch(&read_image(pid, base))?),
        };
        memory
            .write_all_at(&patch.bytes, base.wrapping_add(patch.offset as u64))
            .map_err(EngineError::edge("patch the vDSO"))?;
        Ok(())
    }
}

/// All patches of a vDSO as one, with what lies between them: a program gets it in one write.
fn whole_patch(image: &[u8]) -> Result<Patch, EngineError> {
    let found = patches(image).map_err(|error| EngineError::Vdso { reason: error.to_string() })?;
    let mut patched = image.to_vec();
    for patch in &found {
        patched[patch.offset..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    let from = found.iter().map(|patch| patch.offset).min().unwrap_or(0);
    let to = found.iter().map(|patch| patch.offset + patch.bytes.len()).max().unwrap_or(0);
    Ok(Patch { offset: from, bytes: patched[from..to].to_vec() })
}

/// The pages from `base` on, up to the first that cannot be read.
fn read_image(pid: Pid, base: u64) -> Vec<u8> {
    let mut image = Vec::new();
    let mut page = [0; PAGE_BYTES];
    while image.len() < VDSO_BYTES_MAX && guest::read(pid, base.wrapping_add(image.len() as u64), &mut page).is_ok() {
        image.extend_from_slice(&page);
    }
    image
}
