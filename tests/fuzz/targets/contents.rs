//! Contents, inclusion lists and lines of the inbox from a stranger: what is read is what we would have written, no longer than its bound,
//! and neither the inbox nor the chain of hashes of a chain that nobody extended takes it for its own, nor a chain without pinners its attestations.

#![no_main]

use std::convert::Infallible;

use bpi_protocol::consensus::header::{Header, InboxAnchor, LogHead, PohEnd};
use bpi_protocol::consensus::ids::TimeMs;
use bpi_validator::contents::attestations::{PinnerRules, prove};
use bpi_validator::contents::body::{CONTENTS_BYTES_MAX, Contents};
use bpi_validator::contents::inbox::file::parse_line;
use bpi_validator::contents::inbox::{ENTRIES_MAX, InboxRules, MemoryInbox, check};
use bpi_validator::contents::lists::{LIST_BYTES_MAX, List};
use bpi_validator::contents::poh::{self, Rate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contents) = Contents::from_bytes(bytes) {
        assert!(bytes.len() <= CONTENTS_BYTES_MAX);
        assert_eq!(contents.to_bytes(), bytes);
        let Ok(appended) = contents.appended(|_| Ok::<_, Infallible>(false));
        assert!(appended.len() <= contents.inbox.len() + contents.logs.len() + contents.leaves.len());
        let Ok(logged) = contents.appended(|_| Ok::<_, Infallible>(true));
        assert_eq!(logged.len(), contents.logs.len() + contents.leaves.len(), "what is in the log is not appended for being forced again");
        let (none, rules) = (InboxAnchor::default(), InboxRules::default());
        let served = check(&MemoryInbox::new(), rules, none, none, &contents.inbox);
        assert_eq!(served.is_ok(), contents.inbox.is_empty(), "entries of an inbox that nobody has written to");
        let head = LogHead { size: contents.attestations.len() as u64, root: contents.attestations_root() };
        for (index, attestation) in (0..).zip(&contents.attestations) {
            assert!(PinnerRules::default().check(attestation, TimeMs(0)).is_err(), "nobody is a pinner");
            let proof = prove(&contents.attestations, index).expect("it is one of them");
            assert_eq!(proof.check(&attestation.leaf_hash(), &head), Ok(()));
        }
        // A thousand ticks are allowed, so one segment, and nobody can know its end without making them.
        let (parent, poh) =
            (Header::default(), PohEnd { count: 9, hash: contents.segments.first().copied().unwrap_or([1; 32]) });
        let header = Header { time: TimeMs(1), poh, ..parent };
        assert!(
            poh::check(Rate::default(), &parent, &header, &contents.segments, 1).is_err(),
            "ticks that nobody made"
        );
    }
    if let Ok(list) = List::from_bytes(bytes) {
        assert!(bytes.len() <= LIST_BYTES_MAX);
        assert_eq!(list.to_bytes(), bytes);
    }
    if let Ok(line) = std::str::from_utf8(bytes)
        && let Ok(block) = parse_line(line)
    {
        // What refuses too many entries is the inbox itself.
        let few = block.leaves.len() <= ENTRIES_MAX;
        assert_eq!(MemoryInbox::new().push(block).is_ok(), few);
    }
});
