//! Checkpoints: the head of a log as text that its keys have signed (C2SP tlog-checkpoint and signed-note v1.0.0), for people, witnesses and
//! monitors that know nothing of headers.
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```
//!
//! Always true: a checkpoint and a note have one spelling, and the text of a note is had only by verifying it.
//! Extension lines are refused, because no monitor can audit them (tlog-checkpoint, "Note text"). Only Ed25519 is checked (type 0x01);
//! signatures of other kinds are kept and, as the note's rules have it, ignored. Absent on purpose: private keys.

use std::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::consensus::header::LogHead;
use crate::key::{PublicKey, SignatureError, base64_decode, base64_encode};
use crate::log::LEAVES_MAX;

/// Most signatures of a note; a verifier must take 16 (signed-note, "Format").
pub const SIGNATURES_MAX: usize = 16;
/// Most bytes of a signature with its key id: a post-quantum one has nearly 5 kB (ibidem).
pub const SIGNATURE_BYTES_MAX: usize = 5 * 1024;
/// Most bytes of the name of a key or a log.
pub const NAME_BYTES_MAX: usize = 255;
/// Most bytes of a note: 16 lines of name and base64 are 117 kB, and the text may fill the rest.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// Ed25519 (signed-note, "Signature types").
const ED25519: u8 = 1;
/// What a line of a signature begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// Why bytes are no note, or text no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Longer than any note.
    #[error("{bytes} bytes; a note has at most {NOTE_BYTES_MAX}")]
    Long {
        /// How many.
        bytes: usize,
    },
    /// No UTF-8, or with control characters.
    #[error("a note is UTF-8 without control characters")]
    Characters,
    /// No empty line that parts text and signatures, or no newline at the end of either.
    #[error("a note is a text, an empty line and lines of signatures, each ended by a newline")]
    Form,
    /// A line among the signatures is none.
    #[error("line {line} of the signatures is no signature")]
    Signature {
        /// Which, from 1.
        line: usize,
    },
    /// More signatures than are looked at.
    #[error("{count} signatures; at most {SIGNATURES_MAX} are looked at")]
    Signatures {
        /// How many.
        count: usize,
    },
    /// The name of a key may not be this.
    #[error("{name:?} cannot name a key")]
    Name {
        /// The name, at most its first 100 characters.
        name: String,
    },
    /// A text that is no verifier key.
    #[error(
        "a verifier key is a name, eight hexadecimal digits and base64 of an Ed25519 key, with plus signs between them"
    )]
    VerifierKey,
    /// The id in a verifier key is that of another key.
    #[error("the key's id is {wanted}, not {found}")]
    KeyId {
        /// What it says, in hexadecimal.
        found: String,
        /// What it must say.
        wanted: String,
    },
    /// The text has not the three lines of a checkpoint.
    #[error("a checkpoint has three lines and {found} were found; extension lines are refused")]
    Lines {
        /// How many it has, counted up to the fourth.
        found: usize,
    },
    /// The first line names no log.
    #[error("{origin:?} cannot name a log")]
    Origin {
        /// The line, at most its first 100 characters.
        origin: String,
    },
    /// The second line is no size.
    #[error("the second line is no size of a log: decimal, without leading zeros, at most {LEAVES_MAX}")]
    Size,
    /// The third line is no root.
    #[error("the third line is not the base64 of 32 bytes")]
    Root,
}

/// Why a note is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The key has signed nothing here.
    #[error("no signature is by the trusted key")]
    Unsigned,
    /// What says to be the key's signature is none; then all of the note is refused.
    #[error("the signature of the trusted key: {0}")]
    Signature(#[from] SignatureError),
    /// It has not the length of an Ed25519 signature.
    #[error("the signature of the trusted key has {bytes} bytes, not 64")]
    Length {
        /// How many it has.
        bytes: usize,
    },
}

/// An Ed25519 key, with the name and the id that its signatures go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: PublicKey,
}

impl NoteKey {
    /// A key with a name.
    ///
    /// # Errors
    /// [`NoteError::Name`] when it cannot name a key: empty, longer than [`NAME_BYTES_MAX`], or with spaces, plus signs or controls.
    pub fn new(name: &str, key: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// Reads `name+id+key`, the verifier key ("vkey") of the specification.
    ///
    /// # Errors
    /// When it is none, of another kind, or its id is another key's.
    pub fn from_vkey(text: &str) -> Result<Self, NoteError> {
        // Base64 has plus signs too, so only the first two part anything.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = base64_decode(key).map_err(|_| NoteError::VerifierKey)?;
        let Some((&ED25519, raw)) = key.split_first() else { return Err(NoteError::VerifierKey) };
        let raw = raw.try_into().map_err(|_| NoteError::VerifierKey)?;
        let this = Self::new(name, PublicKey::from_raw(raw).map_err(|_| NoteError::VerifierKey)?)?;
        let wanted = hex::encode(this.id());
        if id != wanted {
            return Err(NoteError::KeyId { found: id.chars().take(100).collect(), wanted });
        }
        Ok(this)
    }

    /// `name+id+key`.
    pub fn to_vkey(&self) -> String {
        let key = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        format!("{}+{}+{}", self.name, hex::encode(self.id()), base64_encode(&key))
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First four bytes of SHA-256(name || 0x0A || 0x01 || key): tells keys apart and proves nothing.
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new().chain_update(&self.name).chain_update([b'\n', ED25519]);
        let [a, b, c, d, ..]: [u8; 32] = hash.chain_update(self.key.as_bytes()).finalize().into();
        [a, b, c, d]
    }
}

/// A line of a signature: whose it says to be, and its bytes, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub id: [u8; 4],
    /// The signature, of whatever kind, of at least one byte.
    pub bytes: Vec<u8>,
}

/// Text and signatures. The text comes out of [`Note::verify`] alone: it "MUST be ignored" until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Signs a checkpoint: `sign` gets the bytes of the text and returns the 64 bytes of an Ed25519 signature by `key`.
    ///
    /// # Errors
    /// Only those of `sign`.
    pub fn sign<E>(
        checkpoint: &Checkpoint,
        key: &NoteKey,
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<Self, E> {
        let text = checkpoint.to_string();
        let bytes = sign(text.as_bytes())?.to_vec();
        Ok(Self { text, signatures: vec![NoteSignature { name: key.name.clone(), id: key.id(), bytes }] })
    }

    /// Reads a note of at most [`NOTE_BYTES_MAX`].
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Long { bytes: bytes.len() });
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Characters)?;
        if whole.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Characters);
        }
        // The last empty line parts them; a text may have empty lines of its own.
        let (text, lines) = whole.rfind("\n\n").map(|at| whole.split_at(at + 1)).ok_or(NoteError::Form)?;
        let lines = lines[1..].strip_suffix('\n').ok_or(NoteError::Form)?;
        let count = lines.split('\n').count();
        if count > SIGNATURES_MAX {
            return Err(NoteError::Signatures { count });
        }
        let read = |(line, text)| NoteSignature::read(text).ok_or(NoteError::Signature { line });
        let signatures = (1..).zip(lines.split('\n')).map(read).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The signatures, whoever they are by.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, as a witness does.
    ///
    /// # Errors
    /// [`NoteError::Signatures`] when there are as many as are looked at, [`NoteError::Name`] and [`NoteError::Signature`] when it could not be
    /// read again.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        check_name(&signature.name)?;
        let line = self.signatures.len() + 1;
        if line > SIGNATURES_MAX {
            return Err(NoteError::Signatures { count: line });
        }
        if signature.bytes.is_empty() || signature.bytes.len() + 4 > SIGNATURE_BYTES_MAX {
            return Err(NoteError::Signature { line });
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Gives out the text if the key has signed it. Signatures of other keys are ignored.
    ///
    /// # Errors
    /// Without a signature of the key, or when one that says to be is none.
    pub fn verify(&self, key: &NoteKey) -> Result<&str, VerifyError> {
        let id = key.id();
        let mut own = self.signatures.iter().filter(|line| line.name == key.name && line.id == id).peekable();
        own.peek().ok_or(VerifyError::Unsigned)?;
        for line in own {
            let bytes =
                line.bytes.as_slice().try_into().map_err(|_| VerifyError::Length { bytes: line.bytes.len() })?;
            key.key.verify(self.text.as_bytes(), bytes)?;
        }
        Ok(&self.text)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            writeln!(f, "{DASH}{} {}", line.name, base64_encode(&[&line.id, line.bytes.as_slice()].concat()))?;
        }
        Ok(())
    }
}

impl NoteSignature {
    fn read(line: &str) -> Option<Self> {
        let (name, text) = line.strip_prefix(DASH)?.split_once(' ')?;
        check_name(name).ok()?;
        if text.len() > SIGNATURE_BYTES_MAX.div_ceil(3) * 4 {
            return None;
        }
        let bytes = base64_decode(text).ok()?;
        let (id, bytes) = bytes.split_first_chunk()?;
        let sound = !bytes.is_empty() && bytes.len() + id.len() <= SIGNATURE_BYTES_MAX;
        sound.then(|| Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}

/// The head of a log, and which log it is. `Display` is the text that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: LogHead,
}

impl Checkpoint {
    /// The head of the log that `origin` names.
    ///
    /// # Errors
    /// When the name cannot stand in a line, or the log is larger than [`LEAVES_MAX`].
    pub fn new(origin: &str, head: LogHead) -> Result<Self, NoteError> {
        if origin.is_empty() || origin.len() > NAME_BYTES_MAX || origin.bytes().any(|byte| byte < 0x20) {
            return Err(NoteError::Origin { origin: origin.chars().take(100).collect() });
        }
        if head.size > LEAVES_MAX {
            return Err(NoteError::Size);
        }
        Ok(Self { origin: origin.to_owned(), head })
    }

    /// Reads the text of a verified note.
    ///
    /// # Errors
    /// When it is no checkpoint, or has extension lines.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let lines: Vec<_> = text.split_terminator('\n').take(4).collect();
        let &[origin, size, root] = lines.as_slice() else { return Err(NoteError::Lines { found: lines.len() }) };
        if !text.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let digits = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| digits).ok_or(NoteError::Size)?;
        let root = base64_decode(root).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NoteError::Root)?;
        Self::new(origin, LogHead { size, root })
    }

    /// Which log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Its head.
    pub fn head(&self) -> &LogHead {
        &self.head
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, base64_encode(&self.head.root))
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let odd = |character: char| character.is_whitespace() || character.is_control() || character == '+';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(odd) {
        return Err(NoteError::Name { name: name.chars().take(100).collect() });
    }
    Ok(())
}
