//! Field sections (QPACK, RFC 9204) without a dynamic table: its capacity stays 0, so no section waits for another stream, neither side
//! keeps a state for the other, and no stream of instructions is needed.
//!
//! A section is judged while it is read: what it takes decoded is counted as the RFC counts it, and reading ends above the limit.

use thiserror::Error;

use crate::huffman::{self, HuffmanError};

/// What a field is counted with besides name and value (RFC 9114, section 4.2.2).
const FIELD_BYTES: usize = 32;

/// One field: name and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Why bytes are no field section.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum QpackError {
    #[error("the section ends inside a field")]
    Truncated,
    #[error("the section refers to a dynamic table, whose capacity is 0")]
    Dynamic,
    #[error("the static table has no entry {index}")]
    Static { index: u64 },
    #[error("an integer is longer than 62 bits")]
    Integer,
    #[error("a string is not of the Huffman code: {0}")]
    Huffman(#[from] HuffmanError),
    /// The only one that is not a fault of the connection.
    #[error("the fields take more than {limit} bytes")]
    TooLarge { limit: usize },
}

/// The static table (RFC 9204, appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 99] = [
    (":authority", ""), (":path", "/"), ("age", "0"), ("content-disposition", ""), ("content-length", "0"),
    ("cookie", ""), ("date", ""), ("etag", ""), ("if-modified-since", ""), ("if-none-match", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("referer", ""), ("set-cookie", ""),
    (":method", "CONNECT"), (":method", "DELETE"), (":method", "GET"), (":method", "HEAD"), (":method", "OPTIONS"),
    (":method", "POST"), (":method", "PUT"), (":scheme", "http"), (":scheme", "https"), (":status", "103"),
    (":status", "200"), (":status", "304"), (":status", "404"), (":status", "503"), ("accept", "*/*"),
    ("accept", "application/dns-message"), ("accept-encoding", "gzip, deflate, br"), ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"), ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"), ("cache-control", "max-age=0"), ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"), ("cache-control", "no-cache"), ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"), ("content-encoding", "br"), ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"), ("content-type", "application/javascript"),
    ("content-type", "application/json"), ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"), ("content-type", "image/jpeg"), ("content-type", "image/png"),
    ("content-type", "text/css"), ("content-type", "text/html; charset=utf-8"), ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"), ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"), ("vary", "accept-encoding"),
    ("vary", "origin"), ("x-content-type-options", "nosniff"), ("x-xss-protection", "1; mode=block"),
    (":status", "100"), (":status", "204"), (":status", "206"), (":status", "302"), (":status", "400"),
    (":status", "403"), (":status", "421"), (":status", "425"), (":status", "500"), ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"), ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"), ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"), ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"), ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"), ("access-control-request-method", "post"), ("alt-svc", "clear"),
    ("authorization", ""), ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"), ("expect-ct", ""), ("forwarded", ""), ("if-range", ""), ("origin", ""),
    ("purpose", "prefetch"), ("server", ""), ("timing-allow-origin", "*"), ("upgrade-insecure-requests", "1"),
    ("user-agent", ""), ("x-forwarded-for", ""), ("x-frame-options", "deny"), ("x-frame-options", "sameorigin"),
];

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, QpackError> {
        let (first, rest) = self.0.split_first().ok_or(QpackError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer of which the low `bits` of `first` are the beginning (RFC 7541, section 5.1).
    fn integer(&mut self, first: u8, bits: u32) -> Result<u64, QpackError> {
        let mask = (1_u64 << bits) - 1;
        let mut value = u64::from(first) & mask;
        if value < mask {
            return Ok(value);
        }
        // Nine bytes of seven bits are more than 62.
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value = value.checked_add(u64::from(byte & 0x7f) << shift).ok_or(QpackError::Integer)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(QpackError::Integer)
    }

    /// A string whose length begins in the low `bits` of `first`; the bit above says that it is of the Huffman code.
    fn string(&mut self, first: u8, bits: u32) -> Result<Vec<u8>, QpackError> {
        let length = self.integer(first, bits)?;
        let length = usize::try_from(length).map_err(|_| QpackError::Truncated)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(QpackError::Truncated)?;
        self.0 = rest;
        match first >> bits & 1 {
            0 => Ok(string.to_vec()),
            _ => Ok(huffman::decode(string)?),
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, QpackError> {
        let first = self.byte()?;
        self.string(first, 7)
    }

    fn entry(&mut self, first: u8, bits: u32) -> Result<(&'static str, &'static str), QpackError> {
        // The bit above the index tells the static table from the dynamic one.
        if first >> bits & 1 == 0 {
            return Err(QpackError::Dynamic);
        }
        let index = self.integer(first, bits)?;
        let known = usize::try_from(index).ok().and_then(|index| STATIC.get(index));
        known.copied().ok_or(QpackError::Static { index })
    }
}

/// The fields of `section` (RFC 9204, section 4.5), which take at most `bytes_max`.
///
/// # Errors
/// [`QpackError::TooLarge`] when they take more; any other says that the peer and this side no longer understand each other.
pub(crate) fn decode(section: &[u8], bytes_max: usize) -> Result<Vec<Field>, QpackError> {
    let mut reader = Reader(section);
    let first = reader.byte()?;
    if reader.integer(first, 8)? != 0 {
        return Err(QpackError::Dynamic);
    }
    // The base means nothing without a dynamic table.
    let first = reader.byte()?;
    reader.integer(first, 7)?;
    let (mut fields, mut bytes) = (Vec::new(), 0_usize);
    while !reader.0.is_empty() {
        let first = reader.byte()?;
        let (name, value) = match first {
            0x80.. => {
                let (name, value) = reader.entry(first, 6)?;
                (name.into(), value.into())
            }
            0x40..=0x7f => (reader.entry(first, 4)?.0.into(), reader.value()?),
            0x20..=0x3f => (reader.string(first, 3)?, reader.value()?),
            // Indices past the base.
            0..=0x1f => return Err(QpackError::Dynamic),
        };
        bytes += name.len() + value.len() + FIELD_BYTES;
        if bytes > bytes_max {
            return Err(QpackError::TooLarge { limit: bytes_max });
        }
        fields.push(Field { name, value });
    }
    Ok(fields)
}

fn write_integer(flags: u8, bits: u32, value: u64, out: &mut Vec<u8>) {
    let mask = (1_u64 << bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The section of `fields`, with the static table and plain strings.
pub(crate) fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    // Nothing inserted is needed, and a base of 0.
    let mut out = vec![0, 0];
    for (name, value) in fields {
        let index = |entry: usize| entry as u64;
        if let Some(entry) = STATIC.iter().position(|known| known == &(*name, *value)) {
            write_integer(0xc0, 6, index(entry), &mut out);
            continue;
        }
        match STATIC.iter().position(|known| known.0 == *name) {
            Some(entry) => write_integer(0x50, 4, index(entry), &mut out),
            None => {
                write_integer(0x20, 3, name.len() as u64, &mut out);
                out.extend_from_slice(name.as_bytes());
            }
        }
        write_integer(0, 7, value.len() as u64, &mut out);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, value: &str) -> Field {
        Field { name: name.into(), value: value.into() }
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 9204, appendix B.1.
        let section = [&[0x00, 0x00, 0x51, 0x0b], b"/index.html".as_slice()].concat();
        assert_eq!(decode(&section, 100), Ok(vec![field(":path", "/index.html")]));
        assert_eq!(encode(&[(":path", "/index.html")]), section);
    }

    #[test]
    fn what_needs_a_dynamic_table_is_refused() {
        // RFC 9204, appendix B.2: two entries are required. Then an indexed dynamic entry, a dynamic name, and both past the base.
        for section in [[0x03, 0x81, 0x10], [0, 0, 0x80], [0, 0, 0x40], [0, 0, 0x10], [0, 0, 0x00]] {
            assert_eq!(decode(&section, 1000), Err(QpackError::Dynamic));
        }
        assert_eq!(decode(&[0, 0, 0xff, 0x24], 1000), Err(QpackError::Static { index: 99 }));
        assert_eq!(decode(&[0, 0, 0xff, 0x23], 1000), Ok(vec![field("x-frame-options", "sameorigin")]));
    }

    #[test]
    fn a_short_section_of_many_fields_is_too_large() {
        // `:method: GET` is one byte and counts 42.
        let section = [&[0, 0], [0xd1; 1000].as_slice()].concat();
        assert_eq!(decode(&section, 4096), Err(QpackError::TooLarge { limit: 4096 }));
    }

    #[test]
    fn an_integer_without_an_end_is_refused() {
        let section = [&[0, 0, 0xff], [0xff; 12].as_slice()].concat();
        assert!(matches!(decode(&section, 100), Err(QpackError::Integer)));
        assert_eq!(decode(&[0, 0, 0x27, 0xff, 0xff, 0x7f], 100), Err(QpackError::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fields in proptest::collection::vec(("[a-z-]{1,300}|:status|:path|server", "[ -~]{0,300}|200|/"), 0..6),
        ) {
            let borrowed: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let expected: Vec<_> = borrowed.iter().map(|(name, value)| field(name, value)).collect();
            prop_assert_eq!(decode(&encode(&borrowed), 10_000), Ok(expected));
        }

        #[test]
        fn any_bytes_are_judged(section in proptest::collection::vec(any::<u8>(), 0..300)) {
            let section = [&[0, 0], section.as_slice()].concat();
            if let Ok(fields) = decode(&section, 2000) {
                prop_assert!(fields.len() * FIELD_BYTES <= 2000);
            }
        }
    }
}
