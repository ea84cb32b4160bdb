//! Records of a spool, one a line: what is read is what we would have written, and a chain of them never makes the walk panic.

#![no_main]

use std::convert::Infallible;

use bpi_protocol::chain::{Entry, Walk};
use bpi_protocol::envelope::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Walk::whole();
    let mut stretch = Walk::stretch();
    for payload in bytes.split(|byte| *byte == b'\n').take(64) {
        let Ok(envelope) = Envelope::sign::<Infallible>(payload.to_vec(), "", |_| Ok([0; 64]));
        let Ok(entry) = Entry::read(&envelope) else { continue };
        let written = entry.record.payload(entry.subject).expect("what was accepted can be written");
        assert_eq!(written, payload, "a record that is not canonical was accepted");
        let in_whole = whole.step(&entry).is_ok();
        let in_stretch = stretch.step(&entry).is_ok();
        assert!(in_stretch || !in_whole, "a whole chain is also a stretch of one");
    }
});
