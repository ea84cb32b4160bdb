//! The processor that programs see under `cpu_features = "baseline"`: one core of x86-64-v2, the same on every host.
//!
//! It answers as a Nehalem of QEMU does (family 6, model 26): what runs there runs here, and a C library takes its well-trodden paths. There is
//! no AVX, no OSXSAVE, no RDRAND, one core, and one set of caches. Leaf 2 lists the caches by one-byte names, which glibc reads with one
//! `cpuid` for each figure, and leaf 4 by their numbers (Intel SDM, volume 2, CPUID). What is beyond the highest leaf is zero.
//!
//! Always true: these answers, the text of /proc/cpuinfo and the auxiliary vector tell of one machine. Absent on purpose: a hypervisor
//! bit and its leaves.

use super::instructions::{Found, Kind};

/// Highest basic leaf.
const HIGHEST: u32 = 4;
/// Highest extended leaf.
const HIGHEST_EXTENDED: u32 = 0x8000_0008;
/// Family 6, model 26, stepping 3.
const SIGNATURE: u32 = 0x0001_06a3;
/// CLFLUSH lines of 8 × 8 bytes; one logical processor, with APIC id 0.
const LINES: u32 = 0x0001_0800;
/// SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT.
const FEATURES_ECX: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
/// FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH, MMX, FXSR, SSE, SSE2.
const FEATURES_EDX: u32 = 0x078b_fbfd;
/// Of those, what a program executes: FPU, TSC, CX8, CMOV, CLFSH, MMX, FXSR, SSE, SSE2. The rest is a kernel's business.
const EXECUTED_EDX: u32 = 1 | 1 << 4 | 1 << 8 | 1 << 15 | 1 << 19 | 0xf << 23;
/// LAHF and SAHF in 64-bit mode.
const EXTENDED_ECX: u32 = 1;
/// SYSCALL, NX, 64-bit mode.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 29;
/// 40 bits of physical addresses, 48 of virtual ones.
const ADDRESSES: u32 = 0x3028;
/// Names of caches and TLBs by leaf 2, each one byte: L1 data 32 KiB (2c), L1 code 32 KiB (30), L2 256 KiB (21), L3 8 MiB (e4), prefetch of 64
/// bytes (f0), TLBs (5a, 03, 55, b2). The low byte says that asking once is enough.
const CACHE_NAMES: [u32; 4] = [0x5503_5a01, 0x00f0_b2e4, 0x0000_0000, 0x2c21_3000];
/// XCR0 of a processor that keeps x87 and SSE state.
const STATE_KEPT: u32 = 3;
/// Its name, 48 bytes with what fills them.
pub const NAME: &str = "DockLock x86-64-v2";

/// AT_HWCAP: EDX of leaf 1 (getauxval(3)).
pub const HWCAP: u64 = FEATURES_EDX as u64;
/// AT_MINSIGSTKSZ: room for the signal frame of every processor that has no tile registers in use.
pub const SIGNAL_FRAME_BYTES: u64 = 4096;

/// What `cpuid` leaves in EAX, EBX, ECX and EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let text = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    match leaf {
        // "GenuineIntel", in the order EBX, EDX, ECX.
        0 => [HIGHEST, text(b"Genu"), text(b"ntel"), text(b"ineI")],
        1 => [SIGNATURE, LINES, FEATURES_ECX, FEATURES_EDX],
        2 => CACHE_NAMES,
        4 => cache(subleaf),
        0x8000_0000 => [HIGHEST_EXTENDED, 0, 0, 0],
        0x8000_0001 => [0, 0, EXTENDED_ECX, EXTENDED_EDX],
        0x8000_0002..=0x8000_0004 => {
            let mut name = [0; 48];
            name[..NAME.len()].copy_from_slice(NAME.as_bytes());
            let start = (leaf - 0x8000_0002) as usize * 16;
            std::array::from_fn(|word| text(&name[start + 4 * word..start + 4 * word + 4]))
        }
        // L2: 256 KiB, 8 ways (code 6), lines of 64 bytes.
        0x8000_0006 => [0, 0, 256 << 16 | 6 << 12 | 64, 0],
        0x8000_0008 => [ADDRESSES, 0, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 4: kind, level, ways and sets of one cache; all have lines of 64 bytes and belong to one core.
fn cache(number: u32) -> [u32; 4] {
    let (kind, level, ways, sets, inclusive) = match number {
        0 => (1, 1, 8, 64, 0),
        1 => (2, 1, 8, 64, 0),
        2 => (3, 2, 8, 512, 0),
        3 => (3, 3, 16, 8192, 2),
        _ => return [0; 4],
    };
    [kind | level << 5 | 1 << 8, (ways - 1) << 22 | (64 - 1), sets - 1, inclusive]
}

/// The registers that an answer reads and writes: those of user_regs_struct that concern it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX to R15 in the order of encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub general: [u64; 16],
    /// Condition flags and others.
    pub flags: u64,
    /// Where it goes on.
    pub rip: u64,
}

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
/// CF, PF, AF, ZF, SF, OF.
const CONDITIONS: u64 = 0x8d5;
const CARRY: u64 = 1;

/// What the registers are after the instruction. `random` gives the next bits of the plan's randomness. `None`: it faults on this
/// processor as well.
pub fn execute(found: Found, mut registers: Registers, random: impl FnOnce() -> u64) -> Option<Registers> {
    let general = &mut registers.general;
    match found.kind {
        Kind::Cpuid => {
            let answer = cpuid(general[RAX] as u32, general[RCX] as u32);
            for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
                general[register] = value.into();
            }
        }
        Kind::Xgetbv => {
            // XCR0, or the part of it in use; there are no others.
            if general[RCX] as u32 > 1 {
                return None;
            }
            (general[RAX], general[RDX]) = (STATE_KEPT.into(), 0);
        }
        Kind::Rdpid => general[usize::from(found.register)] = 0,
        Kind::Rdrand | Kind::Rdseed => {
            let (register, value) = (&mut general[usize::from(found.register)], random());
            *register = match found.width {
                // 16 bits leave the rest of their register, 32 clear it.
                16 => *register & !0xffff | value & 0xffff,
                32 => value & 0xffff_ffff,
                _ => value,
            };
            registers.flags = registers.flags & !CONDITIONS | CARRY;
        }
    }
    registers.rip = registers.rip.wrapping_add(found.length as u64);
    Some(registers)
}

/// True when this host executes all that the baseline promises.
pub fn host_has_baseline() -> bool {
    use std::arch::x86_64::__cpuid;
    // AMD64 APM and Intel SDM agree on both leaves; the extended one is there on every 64-bit processor.
    let (features, extended) = (__cpuid(1), __cpuid(0x8000_0001));
    features.ecx & FEATURES_ECX == FEATURES_ECX
        && features.edx & EXECUTED_EDX == EXECUTED_EDX
        && extended.ecx & EXTENDED_ECX == EXTENDED_ECX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: Kind, register: u8, width: u8, length: usize) -> Found {
        Found { kind, register, width, prefixes: 0, length }
    }

    #[test]
    fn it_has_what_the_baseline_promises_and_nothing_beyond() {
        let [_, _, ecx, edx] = cpuid(1, 0);
        for present in [0, 9, 13, 19, 20, 23] {
            assert_ne!(ecx & 1 << present, 0, "bit {present}");
        }
        // FMA, XSAVE, OSXSAVE, AVX, RDRAND, a hypervisor.
        for absent in [12, 26, 27, 28, 30, 31] {
            assert_eq!(ecx & 1 << absent, 0, "bit {absent}");
        }
        // One logical processor: no HTT.
        assert_eq!((edx & 1 << 28, edx & 1 << 26), (0, 1 << 26));
        assert_eq!(cpuid(7, 0), [0; 4]);
        assert_eq!(cpuid(0x4000_0000, 0), [0; 4]);
    }

    #[test]
    fn its_caches_are_told_alike_by_either_leaf() {
        let size = |number| {
            let [_, b, c, _] = cpuid(4, number);
            ((b >> 22) + 1) * ((b & 0xfff) + 1) * (c + 1)
        };
        assert_eq!([size(0), size(1), size(2), size(3)], [32 << 10, 32 << 10, 256 << 10, 8 << 20]);
        assert_eq!(cpuid(4, 4), [0; 4]);
        let names: Vec<u8> = CACHE_NAMES.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(names[0], 1);
        for name in [0x2c, 0x30, 0x21, 0xe4] {
            assert!(names[1..].contains(&name), "{name:x}");
        }
        assert_eq!(cpuid(0x8000_0006, 0)[2] >> 16, 256);
    }

    #[test]
    fn its_name_is_read_over_three_leaves() {
        let bytes: Vec<u8> =
            (0x8000_0002..=0x8000_0004).flat_map(|leaf| cpuid(leaf, 0)).flat_map(u32::to_le_bytes).collect();
        assert_eq!(bytes.len(), 48);
        assert!(bytes.starts_with(NAME.as_bytes()) && bytes[NAME.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn cpuid_fills_four_registers_and_goes_on_behind_itself() {
        let mut before = Registers { rip: 0x1000, flags: 0x246, ..Registers::default() };
        before.general = [u64::MAX; 16];
        before.general[RAX] = 0xffff_ffff_0000_0000;
        let after = execute(found(Kind::Cpuid, 0, 32, 2), before, || 0);
        let after = after.unwrap_or_default();
        assert_eq!((after.general[RAX], after.general[RBX], after.rip, after.flags), (4, 0x756e_6547, 0x1002, 0x246));
        assert_eq!(after.general[4..], before.general[4..]);
    }

    #[test]
    fn random_bits_come_in_three_widths_and_always_succeed() {
        let before = Registers { general: [0x1111_1111_1111_1111; 16], flags: 0x8d6, rip: 0 };
        let value = |width| {
            let after = execute(found(Kind::Rdrand, 9, width, 4), before, || 0xaabb_ccdd_eeff_0123).unwrap_or_default();
            assert_eq!((after.flags, after.general[8], after.rip), (3, before.general[8], 4));
            after.general[9]
        };
        assert_eq!(value(16), 0x1111_1111_1111_0123);
        assert_eq!(value(32), 0xeeff_0123);
        assert_eq!(value(64), 0xaabb_ccdd_eeff_0123);
    }

    #[test]
    fn the_processors_number_is_zero_and_an_unknown_state_register_faults() {
        let before = Registers { general: [7; 16], ..Registers::default() };
        assert_eq!(execute(found(Kind::Rdpid, 3, 64, 4), before, || 1).map(|after| after.general[RBX]), Some(0));
        assert_eq!(execute(found(Kind::Xgetbv, 0, 32, 3), before, || 1), None);
        let asked = Registers::default();
        assert_eq!(execute(found(Kind::Xgetbv, 0, 32, 3), asked, || 1).map(|after| after.general[RAX]), Some(3));
    }

    #[test]
    fn this_host_can_run_the_tests() {
        assert!(host_has_baseline());
    }
}
