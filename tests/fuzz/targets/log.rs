//! Proofs, frontiers, checkpoints and keys from a stranger: what is read is what we would have written, nothing is proved of a log that
//! nobody made, and no note verifies under our key.

#![no_main]

use bpi_protocol::checkpoint::{Checkpoint, Note, NoteKey};
use bpi_protocol::consensus::header::LogHead;
use bpi_protocol::key::PublicKey;
use bpi_protocol::log::Frontier;
use bpi_protocol::log::proof::{Consistency, Inclusion};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let head = |size, byte| LogHead { size, root: [byte; 32] };
    if let Ok(proof) = Inclusion::from_bytes(bytes) {
        assert_eq!(proof.to_bytes(), bytes);
        assert!(proof.check(&[1; 32], &head(proof.size, 2)).is_err(), "a leaf that nobody logged");
    }
    if let Ok(proof) = Consistency::from_bytes(bytes) {
        assert_eq!(proof.to_bytes(), bytes);
        assert!(proof.check(&head(proof.first, 1), &head(proof.second, 2)).is_err(), "a log that goes on from another");
    }
    if let Ok(mut frontier) = Frontier::from_bytes(bytes) {
        assert_eq!(frontier.to_bytes(), bytes);
        let size = frontier.size();
        assert_eq!(frontier.append([3; 32]), size);
        assert_eq!(frontier.head().size, size + 1);
    }
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        // RFC 8032, section 7.1, test 1: a key whose private half the fuzzer does not know. By the name that the note itself gives.
        let stranger = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";
        let key = PublicKey::from_raw(&stranger).expect("a key of RFC 8032");
        let key = NoteKey::new(&note.signatures()[0].name, key).expect("a name that was accepted");
        assert!(note.verify(&key).is_err(), "a forged note was accepted");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::from_text(text) {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(key) = NoteKey::from_vkey(text) {
        assert_eq!(key.to_vkey(), text);
    }
});
