//! A program's first moment, before its first instruction: its code is looked through, its stack laid out, the kernel's pages go.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::stat::{fstat, major};
use nix::unistd::Pid;

use super::guest;
use super::model::stack;
use super::task::TaskId;
use super::{Engine, EngineError};
use crate::kernel::tracee;

const PAGE_BYTES: usize = 4096;
/// Most bytes of addresses that a program can find on its stack: the kernel takes 6 MiB of arguments and variables at most, each of which
/// has at least a byte (execve(2)).
const STACK_BYTES_MAX: usize = 8 * (6 << 20);

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
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(EngineError::edge("read the mappings of a program"))?;
        if self.policy.profile().no_aslr && !stack::is_in_its_place(&maps) {
            return Err(EngineError::Random);
        }
        self.look_through_program(pid, &maps, &memory)?;
        let mut registers = tracee::registers(pid).map_err(EngineError::edge("read the registers of a program"))?;
        let (words, raw) = stack_of(pid, registers.rsp).map_err(|_: guest::Fault| unreadable_stack())?;
        let random = stack::value(&raw, libc::AT_RANDOM).ok_or_else(unreadable_stack)?;
        let vector = stack::vector(&raw, self.shows_baseline());
        let (start, bytes) = stack::lay_out(&words, &vector, random);
        // What the kernel's longer vector leaves below.
        let left = start.saturating_sub(registers.rsp) as usize;
        let bytes = [vec![0; left], bytes, self.random.at_random().to_vec()].concat();
        memory.write_all_at(&bytes, start - left as u64).map_err(EngineError::edge("write the stack of a program"))?;
        registers.rsp = start;
        self.take_kernels_pages(pid, &registers, &maps, &memory)
    }
}

fn unreadable_stack() -> EngineError {
    EngineError::Edge { deed: "read the stack of a program", source: std::io::Error::from_raw_os_error(libc::EFAULT) }
}

/// What a new program finds on its stack: the words from the argument count to the null behind the environment, and the auxiliary vector
/// without its end.
fn stack_of(pid: Pid, start: u64) -> Result<(Vec<u8>, Vec<u8>), guest::Fault> {
    let count = guest::peek_u64(pid, start)?;
    let arguments = count.checked_add(2).and_then(|words| words.checked_mul(8)).ok_or(guest::EFAULT)?;
    if arguments > STACK_BYTES_MAX as u64 {
        return Err(guest::EFAULT);
    }
    let mut words = vec![0; arguments as usize];
    guest::read(pid, start, &mut words)?;
    words.extend(words_at(pid, start.wrapping_add(arguments), 1)?);
    words.extend([0; 8]);
    let vector = words_at(pid, start.wrapping_add(words.len() as u64), 2)?;
    Ok((words, vector))
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
