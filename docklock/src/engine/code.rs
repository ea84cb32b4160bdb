//! The code that programs bring along: looked through before it runs, its instructions that bypass system calls made to trap, and answered.
//!
//! Code of files is scanned where it becomes executable: at the start of a program (itself and its loader), and at each mmap(2). What a file
//! holds is remembered for as long as the file is the same, so a hundred children with one C library cost one scan. Code that a
//! program makes or changes itself cannot be known: from then on the run's `rdrand` and `cpuid` are uncontrolled, and the receipt says why.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;

use bpi_policies::CpuFeatures;
use nix::unistd::Pid;

use super::calls::Answer;
use super::guest;
use super::model::instructions::{self, CONTEXT_BYTES, Kind, LENGTH_MAX, TRAP};
use super::model::processor::{self, execute};
use super::task::{Call, TaskId};
use super::trace::Event;
use super::{Engine, EngineError, Verdict};
use crate::kernel::tracee::{self, Registers};

/// Bytes of a file that are looked through at once.
const STEP_BYTES: usize = 1 << 20;
/// Most mappings that are remembered; then all are forgotten.
const KNOWN_MAX: usize = 1024;
/// Sites of one page that are this near are patched by one write.
const PAGE_BYTES: u64 = 4096;
/// A file that has rested this long changes its ctime when it changes again: clocks of file systems tick every few milliseconds.
const REST_S: i64 = 1;
/// Logical cost of reading the time stamp counter.
const TSC_NS: u64 = 100;
const RDTSCP_BYTES: u64 = 3;
/// The kernel's word for a fault without an address (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;

/// Why nobody can say what a program executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Memory that is written and executed.
    AtRunTime,
    /// A mapping whose content others can change.
    Shared,
    /// A program writes memory by its file in /proc.
    ThroughProc,
}

impl Made {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::AtRunTime => "the program makes code at run time, which nobody looks through",
            Self::Shared => "the program executes a shared mapping, which can change at any time",
            Self::ThroughProc => "the program writes its memory through /proc, also its code",
        }
    }
}

/// One file's content: equal as long as nobody writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Content {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a part of a file needs.
#[derive(Debug, Default)]
struct Code {
    /// Bytes to write, by their offset in the part.
    patches: Vec<(u64, Vec<u8>)>,
    /// How many instructions they change.
    sites: u64,
    /// Candidates that nobody can tell: of random numbers, of the processor.
    unclear: [u64; 2],
}

/// What is known of code, and what was seen of it.
#[derive(Debug, Default)]
pub(super) struct Library {
    known: HashMap<(Content, u64, u64), Rc<Code>>,
    /// Code that could not be looked through.
    pub made: Option<Made>,
    /// Candidates in what was mapped that nobody can tell: of random numbers, of the processor.
    pub unclear: [u64; 2],
}

impl Code {
    /// Looks through `length` bytes of what `read` gives at an offset. With `all`, everything is patched; else randomness and the
    /// processor's number alone.
    fn of(length: u64, all: bool, read: impl Fn(u64, &mut [u8]) -> io::Result<usize>) -> io::Result<Self> {
        let mut code = Self::default();
        let (step, context) = (STEP_BYTES as u64, CONTEXT_BYTES as u64);
        let mut bytes = Vec::new();
        for start in (0..length).step_by(STEP_BYTES) {
            let from = start.saturating_sub(context);
            let end = length.min(start + step);
            bytes.resize((length.min(end + context) - from) as usize, 0);
            let got = read(from, &mut bytes)?;
            let bytes = &bytes[..got];
            let scan = instructions::scan_within(bytes, (start - from) as usize..(end - from) as usize);
            let wanted = |kind| all || !matches!(kind, Kind::Cpuid | Kind::Xgetbv);
            for (at, _) in scan.sites.into_iter().filter(|(_, found)| wanted(found.kind)) {
                code.add_patch(from, at, bytes);
            }
            for (_, kind) in scan.unclear.into_iter().filter(|(_, kind)| wanted(*kind)) {
                code.unclear[usize::from(!is_random(kind))] += 1;
            }
        }
        Ok(code)
    }

    fn add_patch(&mut self, from: u64, at: usize, bytes: &[u8]) {
        self.sites += 1;
        let offset = from + at as u64;
        if let Some((start, last)) = self.patches.last_mut()
            && *start / PAGE_BYTES == offset / PAGE_BYTES
        {
            let known = (*start - from) as usize + last.len();
            last.extend_from_slice(&bytes[known..at]);
            last.push(TRAP);
            return;
        }
        self.patches.push((offset, vec![TRAP]));
    }
}

fn is_random(kind: Kind) -> bool {
    matches!(kind, Kind::Rdrand | Kind::Rdseed)
}

impl Library {
    /// What `length` bytes of `file` from `offset` on need.
    fn of_file(&mut self, file: &File, offset: u64, length: u64, all: bool) -> io::Result<Rc<Code>> {
        let facts = file.metadata()?;
        let content = Content {
            device: facts.dev(),
            inode: facts.ino(),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        };
        let key = (content, offset, length);
        if let Some(code) = self.known.get(&key) {
            return Ok(Rc::clone(code));
        }
        let there = length.min(facts.size().saturating_sub(offset));
        let code = Rc::new(Code::of(there, all, |at, into| read_fully(file, offset + at, into))?);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        // The host's clock decides here what is remembered, and nothing that a program sees.
        if facts.ctime() + REST_S < tracee::coarse_time_s()? {
            self.known.insert(key, Rc::clone(&code));
        }
        Ok(code)
    }
}

/// As many bytes as there are.
fn read_fully(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// One executable line of /proc/PID/maps (proc_pid_maps(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    writable: bool,
    shared: bool,
    offset: u64,
    /// Inode number 0: memory of no file.
    anonymous: bool,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    /// `None` for what cannot be executed.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let access = fields.next()?.as_bytes();
        if access.get(2) != Some(&b'x') {
            return None;
        }
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (offset, _, inode) = (number(fields.next()?)?, fields.next()?, fields.next()?);
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            writable: access.get(1) == Some(&b'w'),
            shared: access.get(3) == Some(&b's'),
            offset,
            anonymous: inode == "0",
            name: fields.next().unwrap_or_default().trim_start(),
        })
    }

    /// The kernel's own: the vDSO is taken away, calls of the vsyscall page are system calls.
    fn is_kernels(&self) -> bool {
        matches!(self.name, "[vdso]" | "[vsyscall]")
    }

    /// The file behind it, whatever its name has become (proc(5), map_files).
    fn file(&self, pid: Pid) -> io::Result<File> {
        File::open(format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end))
    }
}

impl Engine {
    pub(super) fn shows_baseline(&self) -> bool {
        self.policy.profile().cpu_features == CpuFeatures::Baseline
    }

    /// Code that nobody can know. The first reason is told.
    pub(super) fn code_is_made(&mut self, made: Made) {
        self.library.made.get_or_insert(made);
    }

    /// Looks through what a program that was just loaded can execute: its mappings as /proc tells them, its memory open as `memory`.
    pub(super) fn look_through_program(&mut self, pid: Pid, maps: &str, memory: &File) -> Result<(), EngineError> {
        for mapping in maps.lines().filter_map(Mapping::parse).filter(|mapping| !mapping.is_kernels()) {
            self.look_through(pid, &mapping, memory)?;
        }
        Ok(())
    }

    fn look_through(&mut self, pid: Pid, mapping: &Mapping<'_>, memory: &File) -> Result<(), EngineError> {
        if mapping.shared {
            self.code_is_made(Made::Shared);
        } else if mapping.anonymous || mapping.writable {
            self.code_is_made(Made::AtRunTime);
        }
        if mapping.shared || mapping.anonymous {
            return Ok(());
        }
        let file = mapping.file(pid).map_err(EngineError::edge("open the file of a mapping"))?;
        let code = self.code_of(&file, mapping.offset, mapping.end - mapping.start)?;
        self.apply(mapping.start, &code, || Ok(memory))
    }

    fn code_of(&mut self, file: &File, offset: u64, length: u64) -> Result<Rc<Code>, EngineError> {
        let all = self.shows_baseline();
        self.library.of_file(file, offset, length, all).map_err(EngineError::edge("look through the code of a file"))
    }

    /// Makes the instructions of a mapping trap.
    fn apply<M: Borrow<File>>(
        &mut self,
        start: u64,
        code: &Code,
        memory: impl FnOnce() -> io::Result<M>,
    ) -> Result<(), EngineError> {
        for (sum, more) in self.library.unclear.iter_mut().zip(code.unclear) {
            *sum += more;
        }
        self.counters.unclear += code.unclear.iter().sum::<u64>();
        self.counters.patched += code.sites;
        if code.patches.is_empty() {
            return Ok(());
        }
        let memory = memory().map_err(EngineError::edge("open the memory of a program"))?;
        for (offset, bytes) in &code.patches {
            memory
                .borrow()
                .write_all_at(bytes, start + offset)
                .map_err(EngineError::edge("patch the code of a program"))?;
        }
        Ok(())
    }

    /// mmap(2) and mprotect(2) of what will be executed: the kernel does it, and before the task goes on the code is looked through.
    pub(super) fn map_code(&mut self, id: TaskId, call: &Call) -> Answer {
        const WRITE: u64 = libc::PROT_WRITE as u64;
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(Verdict::Settled) };
        let is_mmap = call.nr == libc::SYS_mmap;
        let [_, length, access, flags, fd, offset] = call.args;
        let anonymous = flags & libc::MAP_ANONYMOUS as u64 != 0;
        let shared = flags & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64;
        if is_mmap && shared && !anonymous {
            self.code_is_made(Made::Shared);
        } else if access & WRITE != 0 || is_mmap && anonymous {
            self.code_is_made(Made::AtRunTime);
        }
        if is_mmap && (shared || anonymous) || !is_mmap && self.library.made.is_some() {
            return self.map_plainly(id, call);
        }
        let file = if is_mmap { self.descriptor(id, fd as i32) } else { None };
        let Some(registers) = self.make_mapping(id, call)? else { return Ok(Verdict::Settled) };
        let result = registers.rax as i64;
        if is_mmap && !(-4095..0).contains(&result) {
            if let Some(file) = file {
                let code = self.code_of(&File::from(file), offset, length.next_multiple_of(PAGE_BYTES))?;
                self.apply(result as u64, &code, || guest::memory(tid))?;
            }
        } else if !is_mmap {
            // A failure may have changed a part.
            self.look_through_range(tid, call.args[0], length)?;
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// What became executable in place. Its pages may differ from the file's, so memory is looked through.
    fn look_through_range(&mut self, tid: Pid, start: u64, length: u64) -> Result<(), EngineError> {
        let maps = match std::fs::read_to_string(format!("/proc/{tid}/maps")) {
            Ok(maps) => maps,
            // It was killed meanwhile, and executes nothing more.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(()),
            Err(source) => return Err(EngineError::Edge { deed: "read the mappings of a program", source }),
        };
        let end = start.saturating_add(length);
        let touched = |mapping: &Mapping<'_>| mapping.start < end && start < mapping.end && !mapping.is_kernels();
        for mapping in maps.lines().filter_map(Mapping::parse).filter(touched) {
            if mapping.shared {
                self.code_is_made(Made::Shared);
            } else if mapping.anonymous || mapping.writable {
                self.code_is_made(Made::AtRunTime);
            } else {
                let memory = guest::memory(tid).map_err(EngineError::edge("open the memory of a program"))?;
                let code = Code::of(mapping.end - mapping.start, self.shows_baseline(), |at, into| {
                    read_fully(&memory, mapping.start + at, into)
                })
                .map_err(EngineError::edge("look through the memory of a program"))?;
                self.apply(mapping.start, &code, || Ok(&memory))?;
            }
        }
        Ok(())
    }

    /// Answers an instruction that faults by the plan: rdtsc and rdtscp, which the kernel traps, and those that were made to trap. False: the
    /// fault is the program's own.
    pub(super) fn answer_fault(&mut self, id: TaskId, pid: Pid) -> Result<bool, EngineError> {
        // A general protection fault, and no signal that somebody sent while the task happened to be here (sigaction(2), si_code).
        if !tracee::signal_sender(pid).is_ok_and(|(_, code)| code == SI_KERNEL) {
            return Ok(false);
        }
        let Ok(mut registers) = tracee::registers(pid) else { return Ok(false) };
        let mut code = [0; LENGTH_MAX];
        let Some(length) = read_code(pid, registers.rip, &mut code) else { return Ok(false) };
        let code = &code[..length];
        let (event, result, args) = if let Some(length) = tsc_length(code) {
            (Event::Tsc, self.read_tsc(length, &mut registers), [0; 2])
        } else {
            let Some(found) = instructions::read(code, TRAP) else { return Ok(false) };
            let before = of_task(&registers);
            let Some(after) = execute(found, before, || self.random.of_processor()) else { return Ok(false) };
            to_task(&after, &mut registers);
            if is_random(found.kind) {
                self.counters.rdrand += 1;
                (Event::Rdrand, after.general[usize::from(found.register)] as i64, [0; 2])
            } else {
                self.counters.cpuid += 1;
                (Event::Cpuid, before.general[0] as u32 as i64, [before.general[1] as u32 as u64, 0])
            }
        };
        let number = self.number_of(id);
        self.record(number, event as i32, result, args)?;
        self.forgiving(tracee::set_registers(pid, &registers), "answer an instruction")?;
        self.forgiving(tracee::resume(pid, 0), "let a task go on")?;
        Ok(true)
    }

    /// The time stamp counter counts logical nanoseconds. What the log keeps of it is its time.
    fn read_tsc(&mut self, length: u64, registers: &mut Registers) -> i64 {
        self.clock.advance(TSC_NS);
        self.counters.tsc += 1;
        let value = self.clock.monotonic();
        registers.rax = value & 0xffff_ffff;
        registers.rdx = value >> 32;
        if length == RDTSCP_BYTES {
            // The number of the processor.
            registers.rcx = 0;
        }
        registers.rip += length;
        0
    }
}

/// Bytes of rdtsc (0f 31) or rdtscp (0f 01 f9).
fn tsc_length(code: &[u8]) -> Option<u64> {
    match code {
        [0x0f, 0x31, ..] => Some(2),
        [0x0f, 0x01, 0xf9, ..] => Some(RDTSCP_BYTES),
        _ => None,
    }
}

/// Reads an instruction, up to the end of its page if the next one cannot be read.
fn read_code(pid: Pid, address: u64, into: &mut [u8; LENGTH_MAX]) -> Option<usize> {
    if guest::read(pid, address, into).is_ok() {
        return Some(LENGTH_MAX);
    }
    let near = LENGTH_MAX.min((PAGE_BYTES - address % PAGE_BYTES) as usize);
    guest::read(pid, address, &mut into[..near]).is_ok().then_some(near)
}

fn of_task(registers: &Registers) -> processor::Registers {
    let r = registers;
    let general =
        [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
    processor::Registers { general, flags: r.eflags, rip: r.rip }
}

fn to_task(from: &processor::Registers, registers: &mut Registers) {
    let r = registers;
    [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15] =
        from.general;
    (r.eflags, r.rip) = (from.flags, from.rip);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cpuid_of(length: usize, at: &[usize]) -> Vec<u8> {
        // nop, which is plain and has one byte; a ret at the end.
        let mut code = vec![0x90; length];
        for at in at {
            code[*at..*at + 2].copy_from_slice(&[0x0f, 0xa2]);
        }
        code
    }

    fn code_of(bytes: &[u8], all: bool) -> Code {
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&bytes[at as usize..at as usize + into.len()]);
            Ok(into.len())
        };
        Code::of(bytes.len() as u64, all, read).unwrap()
    }

    #[test]
    fn sites_of_one_page_are_one_patch_that_keeps_what_is_between() {
        let bytes = cpuid_of(3 * 4096, &[1000, 1010, 9000]);
        let code = code_of(&bytes, true);
        assert_eq!((code.sites, code.unclear), (3, [0, 0]));
        let [(first, one), (second, other)] = &code.patches[..] else { panic!("{:?}", code.patches) };
        assert_eq!((*first, one.len(), *second, &other[..]), (1000, 11, 9000, &[TRAP][..]));
        assert_eq!((one[0], &one[1..10], one[10]), (TRAP, &bytes[1001..1010], TRAP));
        assert!(code_of(&bytes, false).patches.is_empty());
    }

    #[test]
    fn a_site_at_the_edge_of_a_step_is_found_once() {
        for at in [STEP_BYTES - 2, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1] {
            let code = code_of(&cpuid_of(2 * STEP_BYTES + 5, &[at]), true);
            assert_eq!(code.patches, [(at as u64, vec![TRAP])]);
        }
    }

    #[test]
    fn a_file_is_looked_through_once_while_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        std::fs::write(&path, cpuid_of(8192, &[500])).unwrap();
        let file = File::open(&path).unwrap();
        let mut library = Library::default();
        assert_eq!(library.of_file(&file, 0, 8192, true).unwrap().sites, 1);
        // It was written just now: another write could leave its dates as they are.
        assert!(library.known.is_empty());
        assert_eq!(library.of_file(&file, 4096, 8192, true).unwrap().sites, 0);
    }

    #[test]
    fn executable_mappings_are_told_from_others() {
        let line = "555555555000-5555555a0000 r-xp 00001000 fe:01 1234                       /usr/bin/a program";
        let parsed = Mapping::parse(line).unwrap();
        assert_eq!((parsed.start, parsed.end, parsed.offset), (0x5555_5555_5000, 0x5555_555a_0000, 0x1000));
        assert_eq!(
            (parsed.writable, parsed.shared, parsed.anonymous, parsed.name),
            (false, false, false, "/usr/bin/a program")
        );
        assert!(Mapping::parse("7ffff7d00000-7ffff7d22000 r--p 00000000 fe:01 99 /lib/libc.so.6").is_none());
        let stack =
            Mapping::parse("7ffffffde000-7ffffffff000 rwxp 00000000 00:00 0                          [stack]").unwrap();
        assert!(stack.writable && stack.anonymous && !stack.is_kernels());
        assert!(
            Mapping::parse("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]").unwrap().is_kernels()
        );
    }
}
