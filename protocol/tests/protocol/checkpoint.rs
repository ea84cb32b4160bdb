//! Checkpoints and signed notes: the examples of C2SP's signed-note.md and tlog-checkpoint.md, and a signature that a public log made.

use std::convert::Infallible;

use bpi_protocol::checkpoint::{Checkpoint, NOTE_BYTES_MAX, Note, NoteError, NoteKey, NoteSignature, VerifyError};
use bpi_protocol::consensus::header::LogHead;
use bpi_protocol::key::PublicKey;
use bpi_protocol::log::{LEAVES_MAX, Log, leaf_hash};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

/// signed-note.md, "Example".
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// signed-note.md, the poem at the beginning.
const POEM: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
/// tlog-checkpoint.md, the example at the beginning. Its signature is the one of the Go checksum database below, over another origin.
const CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
/// The key of the Go checksum database (go/src/cmd/go/internal/modfetch/key.go), and its checkpoint of that size.
const GO_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const GO: &str = "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn parse(text: &str) -> Result<Note, NoteError> {
    Note::parse(text.as_bytes())
}

fn signer(seed: u8, name: &str) -> (SigningKey, NoteKey) {
    let secret = SigningKey::from_bytes(&[seed; 32]);
    let key = PublicKey::from_verifying_key(secret.verifying_key());
    (secret, NoteKey::new(name, key).unwrap())
}

fn signed(checkpoint: &Checkpoint, secret: &SigningKey, key: &NoteKey) -> Note {
    let Ok(note) = Note::sign::<Infallible>(checkpoint, key, |text| Ok(secret.sign(text).to_bytes()));
    note
}

#[test]
fn the_example_of_the_specification_is_signed_by_its_key_and_no_other() {
    let key = NoteKey::from_vkey(EXAMPLE_KEY).unwrap();
    let note = parse(EXAMPLE).unwrap();
    assert_eq!((key.to_vkey().as_str(), note.to_string().as_str()), (EXAMPLE_KEY, EXAMPLE));
    assert_eq!(note.verify(&key), Ok("This is an example message.\n"));
    assert_eq!(note.verify(&signer(1, "example.com/foo").1), Err(VerifyError::Unsigned));
    let other = parse(&EXAMPLE.replace("example message", "Example message")).unwrap();
    assert!(matches!(other.verify(&key), Err(VerifyError::Signature(_))));
}

#[test]
fn a_checkpoint_that_a_public_log_has_signed_is_read_and_verified() {
    let key = NoteKey::from_vkey(GO_KEY).unwrap();
    let note = parse(GO).unwrap();
    let checkpoint = Checkpoint::from_text(note.verify(&key).unwrap()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.head().size), ("go.sum database tree", 20_852_163));
    assert_eq!(format!("{checkpoint}\n{}", GO.split_once("\n\n").unwrap().1), GO);
}

#[test]
fn the_other_examples_of_the_specifications_are_read_and_written_the_same() {
    for text in [POEM, CHECKPOINT] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(parse(POEM).unwrap().signatures()[0].name, "quasimodo.example/salvatore");
}

#[test]
fn what_is_no_note_is_refused() {
    let signature = EXAMPLE.split_once("\n\n").unwrap().1;
    let refused = |text: &str| parse(text).unwrap_err();
    assert_eq!(refused(""), NoteError::Form);
    assert_eq!(refused("text\n"), NoteError::Form);
    assert_eq!(refused("text\n\n"), NoteError::Form);
    assert_eq!(refused(EXAMPLE.trim_end()), NoteError::Form);
    assert_eq!(refused(&format!("{EXAMPLE}\n")), NoteError::Form);
    assert_eq!(refused(&EXAMPLE.replace("an example", "an\texample")), NoteError::Characters);
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::Characters));
    assert_eq!(refused(&"a".repeat(NOTE_BYTES_MAX + 1)), NoteError::Long { bytes: NOTE_BYTES_MAX + 1 });
    assert_eq!(refused(&format!("text\n\n{}", signature.repeat(17))), NoteError::Signatures { count: 17 });
    assert_eq!(parse(&format!("text\n\n{}", signature.repeat(16))).unwrap().signatures().len(), 16);
    let name = "— example.com/foo ";
    for bad in ["- example.com/foo ", "— ", "— a+b ", "— a\u{a0}b ", "—  ", "— example.com/foo  "] {
        assert_eq!(refused(&EXAMPLE.replace(name, bad)), NoteError::Signature { line: 1 }, "{bad:?}");
    }
    for bad in ["aQM", "aQN=", "aQM=\u{20}", "aQ-="] {
        assert_eq!(refused(&EXAMPLE.replace("aQM=", bad)), NoteError::Signature { line: 1 }, "{bad:?}");
    }
    // Four bytes are an id and no signature.
    assert_eq!(refused("text\n\n— a AAAAAA==\n"), NoteError::Signature { line: 1 });
}

#[test]
fn what_is_no_verifier_key_is_refused() {
    let refused = |text: &str| NoteKey::from_vkey(text).unwrap_err();
    for text in ["", "example.com/foo", "example.com/foo+530d903a", "a+530d903a+", "a+530d903a+AAAA"] {
        assert_eq!(refused(text), NoteError::VerifierKey, "{text}");
    }
    // The key of another kind, and one that is no point of large order.
    assert_eq!(refused(&EXAMPLE_KEY.replace("+Aek", "+Bek")), NoteError::VerifierKey);
    assert_eq!(refused("a+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), NoteError::VerifierKey);
    assert!(matches!(refused(&EXAMPLE_KEY.replace("530d903a", "530D903A")), NoteError::KeyId { .. }));
    assert!(matches!(refused(&EXAMPLE_KEY.replace("foo", "bar")), NoteError::KeyId { .. }));
    assert!(matches!(refused(&EXAMPLE_KEY.replace("/foo", "/ foo")), NoteError::Name { .. }));
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let read = |text: &str| Checkpoint::from_text(text).unwrap_err();
    assert_eq!(read(""), NoteError::Lines { found: 0 });
    assert_eq!(read("a\n1\n"), NoteError::Lines { found: 2 });
    assert_eq!(read(&format!("a\n1\n{root}\nextension\n")), NoteError::Lines { found: 4 });
    assert_eq!(read(&format!("a\n1\n{root}\n\n")), NoteError::Lines { found: 4 });
    assert_eq!(read(&format!("a\n1\n{root}")), NoteError::Form);
    assert_eq!(read(&format!("\n1\n{root}\n")), NoteError::Origin { origin: String::new() });
    for size in ["", "01", "00", "+1", "-1", "1 ", "0x1", "9007199254740993", "18446744073709551616"] {
        assert_eq!(read(&format!("a\n{size}\n{root}\n")), NoteError::Size, "{size:?}");
    }
    for bad in ["", "CsUY", &root[..43], &root.replace("2I=", "2J="), &format!("{root}=")] {
        assert_eq!(read(&format!("a\n1\n{bad}\n")), NoteError::Root, "{bad:?}");
    }
    assert!(Checkpoint::new("two\nlines", LogHead::default()).is_err());
    assert!(Checkpoint::new(&"a".repeat(256), LogHead::default()).is_err());
    assert!(Checkpoint::new("a", LogHead { size: LEAVES_MAX + 1, root: [0; 32] }).is_err());
    assert_eq!(Checkpoint::from_text(&format!("a\n0\n{root}\n")).unwrap().head().size, 0);
}

#[test]
fn strangers_are_ignored_and_a_false_signature_of_a_known_key_spoils_the_note() {
    let mut log = Log::new();
    log.append(leaf_hash(b"a receipt"));
    let checkpoint = Checkpoint::new("example.com/log", log.head()).unwrap();
    let (secret, key) = signer(1, "example.com/log");
    let (_, witness) = signer(2, "example.com/witness");
    let mut note = signed(&checkpoint, &secret, &key);
    let line = |id, bytes| NoteSignature { name: "example.com/log".to_owned(), id, bytes };
    note.add(NoteSignature { name: "example.org/other".to_owned(), id: key.id(), bytes: vec![1] }).unwrap();
    note.add(line([0; 4], vec![0; 2420])).unwrap();
    let note = parse(&note.to_string()).unwrap();
    assert_eq!(note.verify(&key).map(Checkpoint::from_text), Ok(Ok(checkpoint)));
    assert_eq!(note.verify(&witness), Err(VerifyError::Unsigned));
    let with = |bytes| {
        let mut note = note.clone();
        note.add(line(key.id(), bytes)).unwrap();
        note.verify(&key).unwrap_err()
    };
    assert!(matches!(with(vec![0; 64]), VerifyError::Signature(_)));
    assert_eq!(with(vec![0; 63]), VerifyError::Length { bytes: 63 });
}

#[test]
fn no_signature_is_added_that_could_not_be_read_again() {
    let mut note = parse(EXAMPLE).unwrap();
    let line = |name: &str, bytes| NoteSignature { name: name.to_owned(), id: [0; 4], bytes };
    assert!(note.add(line("a b", vec![0; 64])).is_err());
    assert!(note.add(line("a", Vec::new())).is_err());
    assert!(note.add(line("a", vec![0; 5117])).is_err());
    for _ in 0..15 {
        note.add(line(&"a".repeat(255), vec![0; 5116])).unwrap();
    }
    assert_eq!(note.add(line("a", vec![0; 64])), Err(NoteError::Signatures { count: 17 }));
    assert_eq!(parse(&note.to_string()), Ok(note));
}

proptest! {
    #[test]
    fn a_signed_checkpoint_survives_the_way_there_and_no_changed_byte_does(
        origin in "[ -~é—]{1,60}", size in 0..=LEAVES_MAX, root in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let checkpoint = Checkpoint::new(&origin, LogHead { size, root }).unwrap();
        prop_assert_eq!(Checkpoint::from_text(&checkpoint.to_string()), Ok(checkpoint.clone()));
        let (secret, key) = signer(7, "example.com/log");
        prop_assert_eq!(NoteKey::from_vkey(&key.to_vkey()), Ok(key.clone()));
        let note = signed(&checkpoint, &secret, &key);
        let mut bytes = note.to_string().into_bytes();
        prop_assert_eq!(Note::parse(&bytes), Ok(note.clone()));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(bent) = Note::parse(&bytes) {
            prop_assert!(bent.verify(&key).is_err());
            prop_assert_eq!(bent.to_string().into_bytes(), bytes);
        }
    }
}
