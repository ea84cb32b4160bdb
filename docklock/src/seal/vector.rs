//! What this host can do for determinism, and the CPU that its runs see: the host vector of a receipt.
//!
//! Two hosts with one CPUID digest give a program that asks the CPU the same answers. The digest covers every leaf that a program can read, but
//! what names one core of many (APIC and core ids): a task may move between cores, and its receipt would be another one.

use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::HostVector;

use crate::branches::self_test;
use crate::host::HostCapabilities;

/// Highest leaf that is read in each range, whatever the CPU says it has.
const LEAVES_MAX: u32 = 64;
/// How often the branches of how long a loop are counted: together a fraction of a millisecond. `docklock doctor` takes more.
const COUNTED_RUNS: usize = 5;
const COUNTED_TURNS: u64 = 20_000;
/// Highest subleaf that is read of a leaf that has some.
const SUBLEAVES_MAX: u32 = 20;
/// Leaves that name the core that answers: x2APIC ids and, of AMD, core ids.
const OF_ONE_CORE: [u32; 3] = [0xb, 0x1f, 0x8000_001e];
/// Leaves with subleaves: caches, features, state components, monitoring, tracing, tiles.
const WITH_SUBLEAVES: [u32; 14] =
    [0x4, 0x7, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x8000_001d, 0x8000_0020, 0x8000_0026];

/// The vector of the host that `host` was read from, which is this one.
pub fn host_vector(host: &HostCapabilities) -> HostVector {
    let cpu = cpu();
    let mut lsms = host.lsms.clone();
    lsms.sort();
    lsms.dedup();
    HostVector {
        cpu_model: cpu.model.clone(),
        cpuid: cpu.cpuid,
        kernel: host.kernel.clone(),
        // Every x86-64 CPU has CR4.TSD, and every kernel of this architecture offers it (prctl(2), PR_SET_TSC).
        tsc_trap: host.machine == "x86_64",
        cpuid_fault: cpu.fault,
        branch_counter: cpu.branches.to_owned(),
        lsms,
    }
}

#[derive(Debug)]
struct Cpu {
    model: String,
    cpuid: Sha256Digest,
    fault: bool,
    branches: &'static str,
}

/// Asked once in a process: under a hypervisor every leaf costs an exit of the virtual machine.
fn cpu() -> &'static Cpu {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    CPU.get_or_init(|| Cpu {
        model: model(),
        cpuid: digest(),
        fault: has_faulting(),
        branches: self_test(COUNTED_RUNS, COUNTED_TURNS).as_str(),
    })
}

/// The brand string, leaves 0x80000002 to 4 (AMD64 Architecture Programmer's Manual, volume 3, E.4.2).
fn model() -> String {
    if __cpuid_count(0x8000_0000, 0).eax < 0x8000_0004 {
        return "unnamed".to_owned();
    }
    let registers = (0x8000_0002..=0x8000_0004).flat_map(|leaf| {
        let answer = __cpuid_count(leaf, 0);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    });
    let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() { "unnamed".to_owned() } else { text }
}

fn digest() -> Sha256Digest {
    let mut lines = String::new();
    for base in [0, 0x4000_0000, 0x8000_0000_u32] {
        let highest = __cpuid_count(base, 0).eax;
        // A CPU without the range answers with that of another.
        if highest < base || highest - base > 0x1000_0000 {
            continue;
        }
        for leaf in base..=highest.min(base + LEAVES_MAX) {
            if OF_ONE_CORE.contains(&leaf) {
                continue;
            }
            let subleaves = if WITH_SUBLEAVES.contains(&leaf) { SUBLEAVES_MAX } else { 0 };
            for subleaf in 0..=subleaves {
                let answer = __cpuid_count(leaf, subleaf);
                // Bits 31 to 24: the initial APIC id of the core that answers.
                let ebx = if leaf == 1 { answer.ebx & 0x00ff_ffff } else { answer.ebx };
                let (eax, ecx, edx) = (answer.eax, answer.ecx, answer.edx);
                lines.push_str(&format!("{leaf:08x} {subleaf} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}\n"));
            }
        }
    }
    Sha256Digest::of(lines.as_bytes())
}

/// The kernel names what it can trap (arch_prctl(2), ARCH_CPUID).
fn has_faulting() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "cpuid_fault"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_all_cores_have_one_digest() {
        let first = digest();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(digest)).collect();
        for thread in threads {
            assert_eq!(thread.join().ok(), Some(first));
        }
    }

    #[test]
    fn a_vector_keeps_every_rule_of_a_receipt() {
        let vector = host_vector(&HostCapabilities::probe());
        assert!(!vector.cpu_model.is_empty() && !vector.kernel.is_empty());
        assert!(vector.lsms.is_sorted());
    }

    #[test]
    #[ignore = "a figure, not a check"]
    fn what_asking_the_cpu_costs() {
        let before = std::time::Instant::now();
        digest();
        eprintln!("{:?}", before.elapsed());
    }
}
