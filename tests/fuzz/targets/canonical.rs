//! Bytes that claim to be canonical JSON: what is accepted is exactly what we would have written.

#![no_main]

use bpi_protocol::canonical;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = canonical::from_bytes::<serde_json::Value>(bytes, 1 << 16) else { return };
    assert!(bytes.len() <= 1 << 16);
    assert_eq!(canonical::to_bytes(&value).expect("what was accepted can be written"), bytes);
});
