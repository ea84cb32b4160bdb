//! The kernel's own pages in a program, its vDSO and the data beside it, taken away before the program's first instruction.
//!
//! The data pages (`[vvar]`) tell the host's clocks, the scale of its time stamp counter and the generation of its random numbers, the functions of the
//! vDSO read them without a system call, and the size of all moves every library from kernel to kernel. Without them a C library makes system
//! calls, as it does on a kernel that has no vDSO. Only the program can unmap them, so it is made to: at its exec stop it runs one munmap(2) from
//! a few bytes at its entry, with all signals blocked, and then gets those bytes, its registers and its mask back.
//! Always true: a program whose pages are still there does not begin.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use super::guest;
use super::hook::ALL_SIGNALS;
use super::{Engine, EngineError};
use crate::kernel::tracee::{self, Outcome, Registers, Who};

/// `mov eax, SYS_munmap; syscall; int3`. The number cannot come by register: the end of execve(2) writes its own result there.
const STUB: [u8; 8] = [0xb8, libc::SYS_munmap as u8, 0, 0, 0, 0x0f, 0x05, 0xcc];

impl Engine {
    /// Unmaps the kernel's pages among the mappings `maps` (proc_pid_maps(5)), and lets the program begin with `registers`.
    pub(super) fn take_kernels_pages(
        &mut self,
        pid: Pid,
        registers: &Registers,
        maps: &str,
        memory: &File,
    ) -> Result<(), EngineError> {
        if let Some(pages) = kernels_pages(maps)? {
            match self.unmap_by_guest(pid, registers, pages, memory)? {
                None => return Ok(()),
                Some(0) => {}
                Some(_) => return Err(EngineError::Vdso { reason: "munmap(2) failed".to_owned() }),
            }
        }
        let begin = Registers { rax: 0, orig_rax: u64::MAX, ..*registers };
        self.forgiving(tracee::set_registers(pid, &begin), "give a program its registers")
    }

    /// Makes the program run the call; the result. `None`: it is gone.
    fn unmap_by_guest(
        &mut self,
        pid: Pid,
        registers: &Registers,
        pages: Range<u64>,
        memory: &File,
    ) -> Result<Option<u64>, EngineError> {
        let place = registers.rip;
        let code = guest::peek::<{ STUB.len() }>(pid, place)
            .map_err(|_| EngineError::Vdso { reason: "the program's entry cannot be read".to_owned() })?;
        let write = |bytes: &[u8]| {
            memory.write_all_at(bytes, place).map_err(EngineError::edge("write at the entry of a program"))
        };
        let mask = tracee::signal_mask(pid).map_err(EngineError::edge("read a program's signal mask"))?;
        tracee::set_signal_mask(pid, ALL_SIGNALS).map_err(EngineError::edge("block a program's signals"))?;
        write(&STUB)?;
        let call = Registers { rdi: pages.start, rsi: pages.end - pages.start, ..*registers };
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
        write(&code)?;
        tracee::set_signal_mask(pid, mask).map_err(EngineError::edge("give a program its signal mask back"))?;
        Ok(Some(tracee::registers(pid).map_err(EngineError::edge("read a program's registers"))?.rax))
    }
}

/// True for the name of a mapping that is the kernel's and can be unmapped: the vDSO and its data, which newer kernels split.
fn is_kernels(name: &str) -> bool {
    name == "[vdso]" || name.starts_with("[vvar")
}

/// Where the kernel's pages are; they lie side by side.
fn kernels_pages(maps: &str) -> Result<Option<Range<u64>>, EngineError> {
    let mut pages: Option<Range<u64>> = None;
    for line in maps.lines().filter(|line| line.splitn(6, ' ').nth(5).is_some_and(|name| is_kernels(name.trim_start())))
    {
        let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).ok();
        let found = bounds.and_then(|(start, end)| Some(number(start)?..number(end)?));
        pages = match (pages, found) {
            (None, Some(found)) => Some(found),
            (Some(pages), Some(found)) if pages.end == found.start => Some(pages.start..found.end),
            _ => return Err(EngineError::Vdso { reason: "its pages do not lie side by side".to_owned() }),
        };
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: &str = "7ffff7fbb000-7ffff7fbf000 r--p 00000000 00:00 0                          [vvar]\n\
                           7ffff7fbf000-7ffff7fc1000 r--p 00000000 00:00 0                          [vvar_vclock]\n\
                           7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]\n";

    #[test]
    fn the_kernels_pages_are_found_together() {
        let program = "00400000-00401000 r-xp 00000000 08:01 7                                  /srv/[vdso]\n";
        let stack = "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n\
                     ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        let found = kernels_pages(&format!("{program}{KERNELS}{stack}"));
        assert_eq!(found.unwrap(), Some(0x7fff_f7fb_b000..0x7fff_f7fc_3000));
        assert_eq!(kernels_pages(&format!("{program}{stack}")).unwrap(), None);
    }

    #[test]
    fn pages_apart_are_refused() {
        let apart = KERNELS.replace("7ffff7fc1000-7ffff7fc3000", "7ffff7fd1000-7ffff7fd3000");
        assert!(kernels_pages(&apart).is_err());
    }
}
