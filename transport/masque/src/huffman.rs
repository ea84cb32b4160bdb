//! The Huffman code of field strings (RFC 7541, appendix B), read and never written: what this side sends is short.
//!
//! The code is canonical, so the lengths of its words are all that has to be written down.

use thiserror::Error;

/// Bits of the code word of each byte, and last of the end of a string (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
/// Longest word, bits.
const BITS_MAX: usize = 30;
/// The symbol that ends a string; it may not occur in one.
const END: u16 = 256;

/// Why bytes are no Huffman string.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HuffmanError {
    #[error("the end-of-string symbol stands inside a string")]
    End,
    #[error("the padding is longer than seven bits or not all ones")]
    Padding,
}

struct Code {
    /// Symbols, by length and then by value.
    symbols: [u16; 257],
    /// The first word of each length, and how many there are.
    first: [u32; BITS_MAX + 1],
    count: [u32; BITS_MAX + 1],
    /// Where the symbols of each length begin.
    start: [u32; BITS_MAX + 1],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut code =
        Code { symbols: [0; 257], first: [0; BITS_MAX + 1], count: [0; BITS_MAX + 1], start: [0; BITS_MAX + 1] };
    let mut placed = 0;
    let mut word = 0;
    let mut bits = 1;
    while bits <= BITS_MAX {
        word <<= 1;
        code.first[bits] = word;
        code.start[bits] = placed as u32;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == bits {
                code.symbols[placed] = symbol as u16;
                placed += 1;
                word += 1;
                code.count[bits] += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    assert!(placed == LENGTHS.len() && word == 1 << BITS_MAX, "every symbol has a word and no word is left over");
    code
}

/// The bytes that `coded` stands for: at most 8/5 of its length.
///
/// # Errors
/// When the padding is not the start of the end-of-string symbol, or that symbol occurs (RFC 7541, section 5.2).
pub(crate) fn decode(coded: &[u8]) -> Result<Vec<u8>, HuffmanError> {
    let mut decoded = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut word, mut bits) = (0_u32, 0_usize);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |place| u32::from(byte >> place & 1))) {
        word = word << 1 | bit;
        bits += 1;
        // No prefix of a word is longer than the longest: the code is complete.
        let index = word.wrapping_sub(CODE.first[bits]);
        if index < CODE.count[bits] {
            match CODE.symbols[(CODE.start[bits] + index) as usize] {
                END => return Err(HuffmanError::End),
                symbol => decoded.push(symbol as u8),
            }
            (word, bits) = (0, 0);
        }
    }
    match bits < 8 && word == (1 << bits) - 1 {
        true => Ok(decoded),
        false => Err(HuffmanError::Padding),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, appendix C.4 and C.6.
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&host).as_deref(), Ok(b"www.example.com".as_slice()));
        assert_eq!(decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Ok(b"no-cache".as_slice()));
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82,
            0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(decode(&date).as_deref(), Ok(b"Mon, 21 Oct 2013 20:13:21 GMT".as_slice()));
        assert_eq!(decode(&[]).as_deref(), Ok(b"".as_slice()));
    }

    #[test]
    fn padding_is_short_and_of_ones() {
        assert_eq!(decode(&[0xff]), Err(HuffmanError::Padding));
        assert_eq!(decode(&[0b0001_1000]), Err(HuffmanError::Padding));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xfc]), Err(HuffmanError::End));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(coded in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(decoded) = decode(&coded) {
                prop_assert!(decoded.len() <= coded.len() * 8 / 5);
            }
        }
    }
}
