//! What a program finds on its stack when it begins, laid out alike on every kernel.
//!
//! From its stack pointer upwards that is the number of its arguments, their addresses, those of its environment, and the auxiliary vector (System V
//! ABI, AMD64 supplement, 3.4.1); above lie random bytes and strings. How many entries the vector has depends on the kernel's version, and
//! where everything below them lies depends on that. So the lower part is laid out again, with the entries of one list in one order. A vDSO is
//! not among them: it is taken away (`engine::vdso`), for its size moved the libraries.

use super::processor;

/// Bytes of an entry of the auxiliary vector: type and value (getauxval(3)).
pub const ENTRY_BYTES: usize = 16;
/// The stack pointer is a multiple of this when a program begins.
const ALIGNMENT: u64 = 16;

/// Types of the auxiliary vector (linux/auxvec.h) that depend on the processor.
const AT_HWCAP: u64 = 16;
const AT_HWCAP2: u64 = 26;
const AT_MINSIGSTKSZ: u64 = 51;
/// The entries that a program gets, in the kernel's order: MINSIGSTKSZ, HWCAP, PAGESZ, CLKTCK, PHDR, PHENT, PHNUM, BASE, FLAGS, ENTRY, UID, EUID, GID,
/// EGID, SECURE, RANDOM, HWCAP2, EXECFN, PLATFORM, EXECFD. Not SYSINFO_EHDR, the vDSO; not those of restartable sequences, which
/// are refused; not the further capabilities of newer kernels.
const TYPES: [u64; 20] =
    [AT_MINSIGSTKSZ, AT_HWCAP, 6, 17, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 23, 25, AT_HWCAP2, 31, 15, 2];

/// The auxiliary vector for a program, without its end, made of the kernel's `raw` one. With `baseline` it tells of the baseline's processor.
pub fn vector(raw: &[u8], baseline: bool) -> Vec<u8> {
    let entries = || raw.chunks_exact(ENTRY_BYTES).map(|entry| (word(entry, 0), word(entry, 8)));
    let shown = |kind, value| match kind {
        AT_HWCAP if baseline => processor::HWCAP,
        AT_HWCAP2 if baseline => 0,
        AT_MINSIGSTKSZ if baseline => processor::SIGNAL_FRAME_BYTES,
        _ => value,
    };
    let found = TYPES.into_iter().filter_map(|kind| entries().find(|entry| entry.0 == kind));
    found.flat_map(|(kind, value)| [kind, shown(kind, value)]).flat_map(u64::to_le_bytes).collect()
}

/// The value of an entry.
pub fn value(vector: &[u8], kind: u64) -> Option<u64> {
    vector.chunks_exact(ENTRY_BYTES).find(|entry| word(entry, 0) == kind).map(|entry| word(entry, 8))
}

/// Where the stack begins, and what is there up to `top`, the address of the random bytes: `words` (the number of arguments to the null behind the
/// environment), `vector`, its end, and zeroes.
pub fn lay_out(words: &[u8], vector: &[u8], top: u64) -> (u64, Vec<u8>) {
    let length = words.len() + vector.len() + ENTRY_BYTES;
    let start = top.wrapping_sub(length as u64) & !(ALIGNMENT - 1);
    let mut bytes = [words, vector].concat();
    bytes.resize(top.wrapping_sub(start) as usize, 0);
    (start, bytes)
}

/// True when the stack among these mappings (proc_pid_maps(5)) ends where the kernel puts it without address randomisation.
pub fn is_in_its_place(maps: &str) -> bool {
    let stack = maps.lines().find(|line| line.ends_with(" [stack]"));
    stack.and_then(|line| line.split(' ').next()).is_some_and(|bounds| bounds.ends_with("-7ffffffff000"))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(entries: &[(u64, u64)]) -> Vec<u8> {
        entries.iter().flat_map(|(kind, value)| [*kind, *value]).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn two_kernels_give_one_vector() {
        let older = raw(&[(33, 0x7fff_0000), (51, 1776), (16, 0xbfeb_fbff), (6, 4096), (25, 0x7fff_e2b9), (26, 2)]);
        let newer = raw(&[
            (33, 0x7fff_4000),
            (51, 3632),
            (16, 0x178b_fbff),
            (6, 4096),
            (25, 0x7fff_e2b9),
            (26, 2),
            (27, 32),
            (28, 32),
            (29, 7),
        ]);
        let expected = raw(&[(51, 4096), (16, processor::HWCAP), (6, 4096), (25, 0x7fff_e2b9), (26, 0)]);
        assert_eq!(vector(&older, true), expected);
        assert_eq!(vector(&newer, true), expected);
    }

    #[test]
    fn without_the_baseline_the_hosts_processor_shows_and_its_vdso_does_not() {
        let kernels = raw(&[(33, 0x7fff_0000), (51, 3632), (16, 0x178b_fbff)]);
        assert_eq!(vector(&kernels, false), raw(&[(51, 3632), (16, 0x178b_fbff)]));
    }

    #[test]
    fn a_random_stack_is_seen() {
        let stack = |end| format!("7ffffffde000-{end} rw-p 00000000 00:00 0                          [stack]\n");
        assert!(is_in_its_place(&stack("7ffffffff000")));
        assert!(!is_in_its_place(&stack("7ffe5eae7000")) && !is_in_its_place(""));
    }

    #[test]
    fn the_order_is_ours() {
        let shuffled = raw(&[(15, 1), (31, 2), (23, 0), (3, 0x40)]);
        assert_eq!(vector(&shuffled, true), raw(&[(3, 0x40), (23, 0), (31, 2), (15, 1)]));
        assert_eq!((value(&shuffled, 31), value(&shuffled, 9)), (Some(2), None));
    }

    #[test]
    fn everything_lies_right_below_the_random_bytes() {
        for words in 3..12_usize {
            for entries in 0..5_u64 {
                let (before, vector) = (vec![7; 8 * words], raw(&vec![(6, 9); entries as usize]));
                let top = 0x7fff_ffff_e2b9;
                let (start, bytes) = lay_out(&before, &vector, top);
                let used = before.len() + vector.len();
                assert_eq!((start % 16, start + bytes.len() as u64), (0, top));
                assert_eq!((&bytes[..before.len()], &bytes[before.len()..used]), (&before[..], &vector[..]));
                assert!(bytes[used..].iter().all(|byte| *byte == 0));
                assert!((ENTRY_BYTES..2 * ENTRY_BYTES).contains(&(bytes.len() - used)));
            }
        }
    }
}
