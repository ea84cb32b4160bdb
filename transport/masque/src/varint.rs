//! Integers of variable length (RFC 9000, section 16), as QUIC, HTTP/3 and capsules write them.

use bytes::BufMut;

/// Greatest value that has a form.
pub(crate) const MAX: u64 = (1 << 62) - 1;
/// Longest form, bytes.
pub(crate) const BYTES_MAX: usize = 8;

/// Bytes of the form that begins with `first`.
pub(crate) const fn bytes_of(first: u8) -> usize {
    1 << (first >> 6)
}

/// Appends the shortest form of `value`. Above [`MAX`] there is none: such a value is written as [`MAX`], which every reader refuses.
pub(crate) fn write(value: u64, out: &mut impl BufMut) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value.min(MAX)),
    }
}

/// The value at the start of `input` and the bytes it took. `None`: more bytes are needed.
pub(crate) fn read(input: &[u8]) -> Option<(u64, usize)> {
    let bytes = bytes_of(*input.first()?);
    let form = input.get(..bytes)?;
    let value = form.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    // Two bits of the first byte are the length.
    Some((value & (u64::MAX >> (66 - 8 * bytes as u32).min(63)), bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 9000, appendix A.1.
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(read(&eight), Some((151_288_809_941_952_652, 8)));
        assert_eq!(read(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(read(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(read(&[0x25]), Some((37, 1)));
        assert_eq!(read(&[0x40, 0x25]), Some((37, 2)));
        assert_eq!(read(&[0x40]), None);
        assert_eq!(read(&[]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=MAX, rest in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut out = Vec::new();
            write(value, &mut out);
            let bytes = out.len();
            out.extend(rest);
            prop_assert_eq!(read(&out), Some((value, bytes)));
        }

        #[test]
        fn any_bytes_are_read_or_wait(input in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some((value, bytes)) = read(&input) {
                prop_assert!(value <= MAX && bytes <= input.len());
            }
        }
    }
}
