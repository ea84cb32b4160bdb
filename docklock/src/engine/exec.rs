//! A program's first moment: its vDSO is patched, its random bytes are the plan's, before its first instruction.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::stat::{fstat, major};
use nix::unistd::Pid;

use super::guest;
use super::model::processor;
use super::model::vdso::{Patch, patches};
use super::task::TaskId;
use super::{Engine, EngineError};
use crate::kernel::tracee;

/// Most bytes of a vDSO image: the kernel's has two or three pages.
const VDSO_BYTES_MAX: usize = 64 * 1024;
const PAGE_BYTES: usize = 4096;
/// Most bytes of addresses that a program can find on its stack: the kernel takes 6 MiB of arguments and variables at most, each of which
/// has at least a byte (execve(2)).
const STACK_BYTES_MAX: usize = 8 * (6 << 20);
/// Bytes of an entry of the auxiliary vector: type and value (getauxval(3)).
const AUX_BYTES: usize = 16;

/// The patch for this kernel's vDSO: the same for every program.
#[derive(Debug, Default)]
pub(super) struct VdsoPatches {
    known: Option<Patch>,
    /// Bytes of the data pages before the image.
    pub(super) data_bytes: Option<u64>,
}

impl Engine {
    /// The status of each source that the engine knows of (`protocol::claim`), and why it is no better.
    pub(super) fn sources(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let (counts, counters) = (&self.counts, &self.counters);
        let exercised = |used: bool| if used { "controlled" } else { "not-exercised" };
        let random = counts.of(&[libc::SYS_getrandom]) + counters.execs > 0;
        let [chance, processor] = self.library.unclear.map(|unclear| self.why_unknown(unclear));
        let mut sources = BTreeMap::from([
            ("clock", "controlled"),
            ("cpuid", if self.shows_baseline() { exercised(counters.cpuid > 0) } else { "pinned" }),
            ("entropy", exercised(random)),
            ("file-metadata", "controlled"),
            ("pids", "controlled"),
            ("procfs", if self.hosts_mounts { "uncontrolled" } else { "controlled" }),
            ("rdrand", exercised(counters.rdrand > 0)),
            ("rdtsc", exercised(counters.tsc > 0)),
            ("rlimits", "controlled"),
            ("scheduling", if counters.escapes == 0 { "controlled" } else { "uncontrolled" }),
            ("sysinfo", "controlled"),
        ]);
        let mut reasons = BTreeMap::new();
        for (name, why) in [("rdrand", chance), ("cpuid", processor)] {
            // Where the host's own features are shown, its answers are those that its digest pins, whoever asks.
            if let Some(why) = why.filter(|_| name == "rdrand" || self.shows_baseline()) {
                sources.insert(name, "uncontrolled");
                reasons.insert(name.to_owned(), why);
            }
        }
        let sources = sources.into_iter().map(|(name, status)| (name.to_owned(), status.to_owned())).collect();
        (sources, reasons)
    }

    /// Why instructions could have run that nobody answered.
    fn why_unknown(&self, unclear: u64) -> Option<String> {
        let made = self.library.made.map(|made| made.why().to_owned());
        let places = if unclear == 1 { "place" } else { "places" };
        made.or_else(|| (unclear > 0).then(|| format!("its code has {unclear} {places} that could be the instruction")))
    }

    /// The first program begins: from here on everything is decided and recorded.
    pub(super) fn begin(&mut self, id: TaskId) -> Result<(), EngineError> {
        self.started = true;
        if let Some(pid) = self.tasks.get(id).map(|task| task.tid) {
            // The executor began in the host's root.
            self.names = super::calls::path::Names::of(pid)?;
            self.furnish_mounts(pid)?;
        }
        for number in 0..3 {
            let Some(fd) = self.descriptor(id, number) else { continue };
            let stat =
                fstat(&fd).map_err(|errno| EngineError::Edge { deed: "look at a stream", source: errno.into() })?;
            let kind = guest::kind(&stat);
            self.random.opened |= super::calls::random::is_random(&stat);
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
        let memory = guest::memory(pid).map_err(EngineError::edge("open the memory of a program"))?;
        self.look_through_program(pid, &memory)?;
        let (address, mut auxiliary) = self.auxiliary_of(pid)?;
        let value = |wanted: u64| {
            auxiliary
                .chunks_exact(AUX_BYTES)
                .find_map(|entry| (super::calls::word(entry, 0) == wanted).then(|| super::calls::word(entry, 8)))
        };
        let (random, base) = (value(libc::AT_RANDOM), value(libc::AT_SYSINFO_EHDR));
        if let Some(random) = random {
            let bytes = self.random.at_random();
            memory.write_all_at(&bytes, random).map_err(EngineError::edge("write a program's random bytes"))?;
        }
        if self.shows_baseline() {
            processor::furnish(&mut auxiliary);
            memory.write_all_at(&auxiliary, address).map_err(EngineError::edge("write the auxiliary vector"))?;
        }
        let Some(base) = base else { return Ok(()) };
        let patch = match &self.vdso.known {
            Some(patch) => patch,
            None => self.vdso.known.insert(whole_patch(&read_image(pid, base))?),
        };
        memory
            .write_all_at(&patch.bytes, base.wrapping_add(patch.offset as u64))
            .map_err(EngineError::edge("patch the vDSO"))?;
        self.take_clock_pages(pid, base, &memory)
    }

    /// Address and content of a new program's auxiliary vector, without its end: behind the argument count, the arguments and the
    /// environment (System V ABI, AMD64 supplement, 3.4.1).
    fn auxiliary_of(&self, pid: Pid) -> Result<(u64, Vec<u8>), EngineError> {
        let registers = tracee::registers(pid).map_err(EngineError::edge("read the registers of a program"))?;
        let unreadable = |_: guest::Fault| EngineError::Edge {
            deed: "read the stack of a program",
            source: std::io::Error::from_raw_os_error(libc::EFAULT),
        };
        let arguments = registers.rsp.wrapping_add(8);
        let count = guest::peek_u64(pid, registers.rsp).map_err(unreadable)?;
        let variables = arguments.wrapping_add(8 * (count + 1));
        let names = words_at(pid, variables, 1).map_err(unreadable)?;
        let auxiliary = variables.wrapping_add(names.len() as u64 + 8);
        Ok((auxiliary, words_at(pid, auxiliary, 2).map_err(unreadable)?))
    }
}

/// The words that a new program finds on its stack from `address` on, up to a null: an argument's or variable's address each, or with
/// `step` 2 an entry of the auxiliary vector. Returns their bytes without the null.
fn words_at(pid: Pid, address: u64, step: usize) -> Result<Vec<u8>, guest::Fault> {
    let mut bytes = Vec::new();
    while bytes.len() < STACK_BYTES_MAX {
        let at = address.wrapping_add(bytes.len() as u64);
        let start = bytes.len();
        bytes.resize(start + PAGE_BYTES - (at as usize & (PAGE_BYTES - 1)), 0);
        guest::read(pid, at, &mut bytes[start..])?;
        let entry = 8 * step;
        // An entry may begin on one page and end on the next.
        let whole = start / entry * entry;
        if let Some(end) = bytes[whole..].chunks_exact(entry).position(|entry| super::calls::word(entry, 0) == 0) {
            bytes.truncate(whole + end * entry);
            return Ok(bytes);
        }
    }
    Err(guest::EFAULT)
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
