//! The data pages beside the vDSO, taken away from a program before its first instruction.
//!
//! The kernel keeps there what its vDSO reads: the host's clocks, the scale of its time stamp counter, the generation of its random numbers.
//! The functions that read them are patched away ([`super::model::vdso`]), but a program can look at the pages itself. Only the program can
//! unmap them, so it is made to: at its exec stop it runs one munmap(2) from a few bytes in the header of its vDSO, with all signals blocked,
//! and then gets header, registers and mask back.
//! Always true: a program whose pages are still there does not begin.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use super::guest;
use super::{Engine, EngineError};
use crate::kernel::tracee::{self, Outcome, Registers, Who};

/// `mov eax, SYS_munmap; syscall; int3`. The number cannot come by register: the end of execve(2) writes its own result there.
const STUB: [u8; 8] = [0xb8, libc::SYS_munmap as u8, 0, 0, 0, 0x0f, 0x05, 0xcc];
/// Where in the image it is for that moment: the rest of e_ident and what follows, which nobody reads meanwhile (elf(5)).
const STUB_OFFSET: u64 = 8;
/// Every signal but those that cannot be blocked.
const ALL_SIGNALS: u64 = u64::MAX;

impl Engine {
    /// Unmaps the data pages of the vDSO at `base`.
    pub(super) fn take_clock_pages(&mut self, pid: Pid, base: u64, memory: &File) -> Result<(), EngineError> {
        let bytes = match self.vdso.data_bytes {
            Some(known) => known,
            None => *self.vdso.data_bytes.insert(data_bytes(pid, base)?),
        };
        if bytes == 0 {
            return Ok(());
        }
        let Some((saved, result)) = self.unmap_by_guest(pid, base, bytes, memory)? else { return Ok(()) };
        if result != 0 {
            return Err(EngineError::Vdso { reason: "its data pages cannot be taken away".to_owned() });
        }
        let restored = Registers { rax: 0, orig_rax: u64::MAX, ..saved };
        self.forgiving(tracee::set_registers(pid, &restored), "give a program its registers back")
    }

    /// Makes the program run the call; its registers before, and the result. `None`: it is gone.
    fn unmap_by_guest(
        &mut self,
        pid: Pid,
        base: u64,
        bytes: u64,
        memory: &File,
    ) -> Result<Option<(Registers, u64)>, EngineError> {
        let place = base.wrapping_add(STUB_OFFSET);
        let header = guest::peek::<{ STUB.len() }>(pid, place)
            .map_err(|_| EngineError::Vdso { reason: "its header cannot be read".to_owned() })?;
        let write = |bytes: &[u8]| memory.write_all_at(bytes, place).map_err(EngineError::edge("write into the vDSO"));
        let saved = tracee::registers(pid).map_err(EngineError::edge("read a program's registers"))?;
        let mask = tracee::signal_mask(pid).map_err(EngineError::edge("read a program's signal mask"))?;
        tracee::set_signal_mask(pid, ALL_SIGNALS).map_err(EngineError::edge("block a program's signals"))?;
        write(&STUB)?;
        let call = Registers { rip: place, rdi: base.wrapping_sub(bytes), rsi: bytes, ..saved };
        tracee::set_registers(pid, &call).map_err(EngineError::edge("set a program's registers"))?;
        loop {
            self.forgiving(tracee::resume(pid, 0), "let a program take its pages away")?;
            match tracee::wait(Who::Task(pid), true) {
                Ok(Some((_, Outcome::Stopped { signal: libc::SIGTRAP, event: 0 }))) => break,
                // SIGSTOP alone cannot be blocked; nobody inside runs who could have sent it.
                Ok(Some((_, Outcome::Stopped { .. })) | None) => {}
                Ok(Some((pid, outcome))) => {
                    self.on_event(pid, outcome)?;
                    return Ok(None);
                }
                Err(source) => return Err(EngineError::Edge { deed: "wait for a program's pages", source }),
            }
        }
        write(&header)?;
        tracee::set_signal_mask(pid, mask).map_err(EngineError::edge("give a program its signal mask back"))?;
        let result = tracee::registers(pid).map_err(EngineError::edge("read a program's registers"))?.rax;
        Ok(Some((saved, result)))
    }
}

/// How much of the memory before the vDSO at `base` are its data pages (proc_pid_maps(5)): the same for every program of a kernel.
fn data_bytes(pid: Pid, base: u64) -> Result<u64, EngineError> {
    let maps =
        std::fs::read_to_string(format!("/proc/{pid}/maps")).map_err(EngineError::edge("read a program's mappings"))?;
    let pages = maps.lines().filter(|line| line.contains("[vvar"));
    let starts = pages.filter_map(|line| u64::from_str_radix(line.split_once('-')?.0, 16).ok());
    Ok(starts.filter(|start| *start < base).min().map_or(0, |start| base - start))
}
