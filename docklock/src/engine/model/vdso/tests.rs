#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const TEXT: usize = 0x400;
const NAMES: usize = 0x300;
const TABLE: usize = 0x200;
const HASH: usize = 0x180;
const DYNAMIC: usize = 0x100;
const BYTES: usize = 0x1000;

/// A vDSO with these functions: name, offset from [`TEXT`], size.
fn image(functions: &[(&str, usize, u64)], gnu: bool) -> Vec<u8> {
    let mut image = vec![0xcc; BYTES];
    image[..TEXT].fill(0);
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, value) in [(16, 3_u16), (18, 62), (54, 56), (56, 2)] {
        put(at, &value.to_le_bytes());
    }
    put(32, &64_u64.to_le_bytes());
    for (at, kind, flags, offset, size) in
        [(64, PT_LOAD, 5_u32, 0, BYTES), (120, PT_DYNAMIC, 4, DYNAMIC, 5 * DYNAMIC_BYTES)]
    {
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        put(at + 8, &(offset as u64).to_le_bytes());
        put(at + 16, &(offset as u64).to_le_bytes());
        put(at + 32, &(size as u64).to_le_bytes());
    }
    let tables = [(DT_STRTAB, NAMES), (DT_SYMTAB, TABLE), (if gnu { DT_GNU_HASH } else { DT_HASH }, HASH)];
    for (index, (tag, value)) in tables.into_iter().enumerate() {
        put(DYNAMIC + index * 16, &tag.to_le_bytes());
        put(DYNAMIC + index * 16 + 8, &(value as u64).to_le_bytes());
    }
    let count = functions.len() as u32 + 1;
    if gnu {
        // One bucket, symbols from 1 on, one word of bloom filter.
        for (index, word) in
            [1, 1, 1, 0, 0, 0, 1].into_iter().chain((1..count).map(|index| u32::from(index + 1 == count))).enumerate()
        {
            put(HASH + index * 4, &word.to_le_bytes());
        }
    } else {
        put(HASH + 4, &count.to_le_bytes());
    }
    let mut name_at = 1;
    for (index, (name, offset, size)) in functions.iter().enumerate() {
        let at = TABLE + (index + 1) * SYMBOL_BYTES;
        put(at, &(name_at as u32).to_le_bytes());
        put(at + 4, &[0x12, 0, 9, 0]);
        put(at + 8, &((TEXT + offset) as u64).to_le_bytes());
        put(at + 16, &size.to_le_bytes());
        put(NAMES + name_at, name.as_bytes());
        name_at += name.len() + 1;
    }
    image
}

const FUNCTIONS: [(&str, usize, u64); 4] = [
    ("__vdso_clock_gettime", 0x40, 200),
    ("clock_gettime", 0x40, 200),
    ("__vdso_getrandom", 0x200, 6),
    ("__vdso_getcpu", 0, 40),
];

fn expected() -> Vec<Patch> {
    vec![
        Patch { offset: TEXT, bytes: b"\xb8\x35\x01\0\0\x0f\x05\xc3".to_vec() },
        Patch { offset: TEXT + 0x40, bytes: b"\xb8\xe4\0\0\0\x0f\x05\xc3".to_vec() },
        Patch { offset: TEXT + 0x200, bytes: b"\xb8\xda\xff\xff\xff\xc3".to_vec() },
    ]
}

#[test]
fn each_function_becomes_its_system_call() {
    assert_eq!(patches(&image(&FUNCTIONS, false)), Ok(expected()));
}

#[test]
fn an_image_with_only_the_newer_hash_is_read_too() {
    assert_eq!(patches(&image(&FUNCTIONS, true)), Ok(expected()));
}

#[test]
fn a_function_nobody_knows_does_not_exist() {
    let found = patches(&image(&[("__vdso_tomorrow", 0, 64)], false)).unwrap();
    assert_eq!(found, [Patch { offset: TEXT, bytes: b"\xb8\xda\xff\xff\xff\xc3".to_vec() }]);
}

#[test]
fn a_function_too_small_or_not_code_is_refused() {
    let refused = |function| patches(&image(&[function], false)).unwrap_err();
    let name = "time".to_owned();
    assert_eq!(refused(("time", 0, 7)), VdsoError::Function { name: name.clone(), offset: TEXT as u64, size: 7 });
    let end = (BYTES - TEXT - 4, 8);
    assert_eq!(refused(("time", end.0, end.1)), VdsoError::Function { name, offset: (BYTES - 4) as u64, size: 8 });
    let mut not_code = image(&FUNCTIONS, false);
    not_code[68] = 4;
    assert!(matches!(patches(&not_code), Err(VdsoError::Function { .. })));
}

#[test]
fn functions_that_overlap_are_refused() {
    for other in [("getcpu", 0, 40), ("getcpu", 7, 40)] {
        let found = patches(&image(&[("time", 0, 40), other], false));
        assert_eq!(found, Err(VdsoError::Overlap { name: "getcpu".to_owned(), offset: (TEXT + other.1) as u64 }));
    }
    assert!(matches!(patches(&image(&[("getcpu", 7, 40), ("time", 0, 40)], false)), Err(VdsoError::Overlap { .. })));
}

#[test]
fn what_is_no_vdso_is_refused() {
    assert_eq!(patches(b""), Err(VdsoError::NotElf));
    assert_eq!(patches(&[0; 4096]), Err(VdsoError::NotElf));
    assert_eq!(patches(&vec![0; IMAGE_BYTES_MAX + 1]), Err(VdsoError::TooLarge { bytes: IMAGE_BYTES_MAX + 1 }));
    assert_eq!(patches(&image(&[], false)), Err(VdsoError::Missing { what: "function" }));
    assert!(matches!(patches(&image(&FUNCTIONS, false)[..0x280]), Err(VdsoError::Outside { .. })));
}

#[test]
fn a_chain_without_an_end_is_refused() {
    let mut endless = image(&FUNCTIONS, true);
    endless[HASH + 24..HASH + 28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(patches(&endless), Err(VdsoError::Outside { what: "hash chain", .. })));
}

/// The image this very process runs with, read as the kernel mapped it.
#[test]
fn the_vdso_of_this_kernel_can_be_closed_whole() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return };
    let (start, rest) = line.split_once('-').unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let end = u64::from_str_radix(rest.split_once(' ').unwrap().0, 16).unwrap();
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start).unwrap();
    let found = patches(&bytes).unwrap();
    let calls = found.iter().filter(|patch| patch.bytes.len() == CALL.len()).count();
    assert!(calls >= 5, "{calls} of {} are calls", found.len());
}

proptest! {
    #[test]
    fn no_image_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = patches(&bytes);
    }

    #[test]
    fn a_spoiled_image_is_patched_within_itself_or_refused(
        gnu in any::<bool>(),
        length in TEXT..BYTES,
        spoils in proptest::collection::vec((0..TEXT, any::<u8>()), 0..12),
    ) {
        let mut bytes = image(&FUNCTIONS, gnu);
        for (at, byte) in spoils {
            bytes[at] = byte;
        }
        bytes.truncate(length);
        let mut end = 0;
        for patch in patches(&bytes).unwrap_or_default() {
            prop_assert!(patch.offset >= end && patch.offset + patch.bytes.len() <= bytes.len());
            end = patch.offset + patch.bytes.len();
        }
    }

    #[test]
    fn a_spoiled_word_never_panics(gnu in any::<bool>(), at in 0..TEXT / 8, word in any::<u64>()) {
        let mut bytes = image(&FUNCTIONS, gnu);
        bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        let _ = patches(&bytes);
    }
}
