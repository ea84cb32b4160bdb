//! Where large mappings go: the highest free place below a fixed ceiling, the same on every kernel.
//!
//! Kernels agree on where a short mapping goes (the first gap from above that fits), but not on a long one: from 2 MiB on it may be
//! aligned to huge pages, by version and file system. So these are placed here, in a part of the address space of their own, each at a multiple of 2 MiB.

use std::ops::Range;

/// Mappings from this length on are placed.
pub const LARGE_BYTES: u64 = 2 << 20;
const PAGE_BYTES: u64 = 4096;
/// The part for them: below what programs get without asking, above what they ask for.
const LARGE: Range<u64> = 0x1000_0000_0000..0x7ff0_0000_0000;
/// What MAP_32BIT leaves (mmap(2)).
const LOW: Range<u64> = 0x4000_0000..0x8000_0000;
/// What an address may be asked for: not the first 64 KiB (vm.mmap_min_addr), not beyond 47 bits.
const ASKED: Range<u64> = 0x1_0000..0x7fff_ffff_f000;
/// What lies below all parts, and is never given.
const UNDERNEATH: Range<u64> = 0..ASKED.start;
/// The kernel keeps this free below a stack (`stack_guard_gap`).
const STACK_GAP_BYTES: u64 = 256 * PAGE_BYTES;

/// The ranges of a text like /proc/N/maps (proc_pid_maps(5)), ascending. A stack has the room that the kernel keeps below it.
pub fn taken(maps: &str) -> Vec<Range<u64>> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let gap = if line.ends_with("[stack]") { STACK_GAP_BYTES } else { 0 };
        Some(number(start)?.saturating_sub(gap)..number(end)?)
    };
    maps.lines().filter_map(range).collect()
}

/// Where a mapping of `length` bytes goes that asks for the address `asked`, or with 0 for none, and with `low` for one of 31 bits. `None`: nowhere.
pub fn place(taken: &[Range<u64>], length: u64, asked: u64, low: bool) -> Option<u64> {
    let length = length.checked_next_multiple_of(PAGE_BYTES)?;
    let asked = asked & !(PAGE_BYTES - 1);
    let wished = asked..asked.checked_add(length)?;
    let free = || taken.iter().all(|range| range.end <= wished.start || wished.end <= range.start);
    if asked >= ASKED.start && wished.end <= ASKED.end && free() {
        return Some(asked);
    }
    let (part, alignment) = if low { (LOW, PAGE_BYTES) } else { (LARGE, LARGE_BYTES) };
    let mut ceiling = part.end;
    for range in taken.iter().rev().chain([&UNDERNEATH]) {
        if range.start >= ceiling {
            continue;
        }
        if let Some(start) = ceiling.checked_sub(length).map(|start| start & !(alignment - 1))
            && start >= range.end.max(part.start)
        {
            return Some(start);
        }
        ceiling = range.start;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn only(start: u64, end: u64) -> [Range<u64>; 1] {
        std::array::from_fn(|_| start..end)
    }

    #[test]
    fn the_first_goes_below_the_ceiling_and_the_next_below_it() {
        let first = place(&[], 8 * MIB + 1, 0, false).unwrap();
        assert_eq!(first, 0x7ff0_0000_0000 - 10 * MIB);
        let taken = only(first, first + 8 * MIB + PAGE_BYTES);
        assert_eq!(place(&taken, 4 * MIB, 0, false), Some(first - 4 * MIB));
        // It fits above.
        assert_eq!(place(&only(first - MIB, first + MIB), 4 * MIB, 0, false), Some(first + 6 * MIB));
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_if_it_is_free() {
        let taken = only(0xc0_0000_0000, 0xc0_0040_0000);
        assert_eq!(place(&taken, 4 * MIB, 0xc0_0040_0123, false), Some(0xc0_0040_0000));
        assert!(place(&taken, 4 * MIB, 0xc0_0020_0000, false).unwrap() > 0x7f00_0000_0000);
        assert!(place(&taken, 4 * MIB, 0x1000, false).unwrap() > 0x7f00_0000_0000);
        assert!(place(&taken, 4 * MIB, 0x8000_0000_0000, false).unwrap() < 0x7ff0_0000_0000);
    }

    #[test]
    fn a_low_one_stays_low_and_a_full_part_has_no_place() {
        assert_eq!(place(&[], 4 * MIB, 0, true), Some(0x8000_0000 - 4 * MIB));
        assert_eq!(place(&only(0x5000_0000, 0x7fff_0000), 512 * MIB, 0, true), None);
        assert_eq!(place(&[], 1 << 48, 0, false), None);
        assert_eq!(place(&[], u64::MAX, 0, false), None);
    }

    #[test]
    fn maps_are_read_and_a_stack_has_its_gap() {
        let maps = "00400000-00401000 r-xp 00000000 00:01 1003                       /usr/bin/cat\n\
                    7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(taken(maps), [0x40_0000..0x40_1000, 0x7fff_ffed_e000..0x7fff_ffff_f000]);
    }

    proptest! {
        #[test]
        fn what_is_placed_is_free_and_whole(
            edges in proptest::collection::btree_set(0x7fe0_0000_u64..0x7ff0_0000, 0..40),
            mib in 2_u64..600,
            low: bool,
        ) {
            let edges: Vec<u64> = edges.into_iter().map(|edge| edge << 12 << 4).collect();
            let taken: Vec<Range<u64>> = edges.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            if let Some(start) = place(&taken, mib * MIB, 0, low) {
                let end = start + mib * MIB;
                prop_assert!(taken.iter().all(|range| range.end <= start || end <= range.start));
                let part = if low { LOW } else { LARGE };
                prop_assert!(part.start <= start && end <= part.end);
            }
        }
    }
}
