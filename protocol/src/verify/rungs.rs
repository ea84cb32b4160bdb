//! How each rung is judged.

use super::Falsehood;
use super::report::Finding;
use crate::canonical;
use crate::chain::{ChainError, Entry, Record, RecordError, Walk};
use crate::digest::Sha256Digest;
use crate::envelope::{Envelope, PAYLOAD_BYTES_MAX, PAYLOAD_TYPE, pae};
use crate::evidence::Evidence;
use crate::key::SignatureError;
use crate::redaction::{Redaction, WithheldRecord};
use crate::run::Run;
use crate::trust::{Trust, Trusted};

const NO_TRUST: &str = "no trusted key was given, and a key inside the evidence is never trusted for being there";

/// What is known of a signature.
pub(super) enum Signature<'a> {
    By(&'a Trusted),
    NobodyTrusted,
    False(Falsehood),
}

type ReadEntry = Result<Entry, RecordError>;

/// Judges the receipt's signature, and if it does not hold, what was most likely changed.
pub(super) fn signature<'a>(evidence: &Evidence, trust: &'a Trust, entry: &ReadEntry) -> Signature<'a> {
    let envelope = &evidence.receipt;
    if trust.is_empty() {
        return Signature::NobodyTrusted;
    }
    let named = envelope.keyid().map(|keyid| (keyid, trust.get(keyid)));
    if let Some((_, Some(trusted))) = named {
        match envelope.verify(&trusted.key) {
            Ok(()) => return Signature::By(trusted),
            Err(source @ SignatureError::Scalar) => {
                let signature = hex::encode(envelope.signature());
                return Signature::False(Falsehood::SignatureForm { signature, source });
            }
            Err(SignatureError::Mismatch) => {}
        }
    }
    let signer = trust.all().find(|trusted| envelope.verify(&trusted.key).is_ok());
    match (named, signer) {
        (None, Some(signer)) => Signature::By(signer),
        (None, None) => Signature::False(Falsehood::NoKeyFits { tried: trust.all().count() }),
        (Some((named, _)), Some(signer)) => {
            Signature::False(Falsehood::KeyIdChanged { named: named.to_owned(), actual: signer.key.keyid() })
        }
        (Some((keyid, None)), None) => Signature::False(Falsehood::UnknownKey { keyid: keyid.to_owned() }),
        (Some((_, Some(trusted))), None) => Signature::False(what_was_changed(evidence, trusted, entry)),
    }
}

/// The named key is trusted, but its signature does not hold. The sentence that helps most is the one with the most proof behind it.
fn what_was_changed(evidence: &Evidence, trusted: &Trusted, entry: &ReadEntry) -> Falsehood {
    let envelope = &evidence.receipt;
    if envelope.payload_type() != PAYLOAD_TYPE
        && trusted.key.verify(&pae(PAYLOAD_TYPE, envelope.payload()), envelope.signature()).is_ok()
    {
        return Falsehood::TypeChanged { found: envelope.payload_type().to_owned() };
    }
    if trusted.key.verify(envelope.payload(), envelope.signature()).is_ok() {
        return Falsehood::SignedWithoutType;
    }
    let same_signature = |other: &&Envelope| other.signature() == envelope.signature();
    if let Some(other) = evidence.chain.iter().flatten().find(same_signature)
        && let Ok(record) = Record::parse(other)
    {
        return Falsehood::SignatureOfAnother { seq: record.chain().seq };
    }
    match entry {
        Err(error) => Falsehood::PayloadChanged(error.clone()),
        Ok(entry) if evidence.run.as_ref().is_some_and(|run| Sha256Digest::of(run) != entry.subject) => {
            Falsehood::PayloadOfAnotherRun
        }
        Ok(_) => Falsehood::SignatureChanged {
            payload: Sha256Digest::of(envelope.payload()),
            signature: hex::encode(envelope.signature()),
        },
    }
}

pub(super) fn signature_finding(signature: &Signature<'_>, evidence: &Evidence) -> Finding {
    match signature {
        Signature::By(trusted) => Finding::True(format!(
            "key {} signed exactly these {} bytes",
            trusted.key.keyid(),
            evidence.receipt.payload().len()
        )),
        Signature::NobodyTrusted => Finding::Unknown(NO_TRUST.to_owned()),
        Signature::False(falsehood) => Finding::False(falsehood.clone()),
    }
}

pub(super) fn identity(signature: &Signature<'_>, entry: &ReadEntry) -> Finding {
    let trusted = match signature {
        Signature::By(trusted) => trusted,
        Signature::NobodyTrusted => return Finding::Unknown(NO_TRUST.to_owned()),
        Signature::False(_) => {
            return Finding::Unknown("the signature does not hold, so nobody said anything".to_owned());
        }
    };
    let Ok(entry) = entry else {
        return Finding::Unknown("the statement cannot be read, so it names no host".to_owned());
    };
    let host = entry.record.host();
    if let Some(falsehood) = other_identity(trusted, &host.id, &host.keyid) {
        return Finding::False(falsehood);
    }
    let scope = if trusted.host.is_some() { "as the trust file says" } else { "by the one key that is trusted" };
    Finding::True(format!("host {} {scope}", host.id))
}

fn other_identity(trusted: &Trusted, id: &str, keyid: &str) -> Option<Falsehood> {
    let actual = trusted.key.keyid();
    if keyid != actual {
        return Some(Falsehood::OtherKey { claimed: keyid.to_owned(), actual });
    }
    let actual = trusted.host.as_ref().filter(|host| *host != id)?;
    Some(Falsehood::OtherHost { claimed: id.to_owned(), actual: actual.clone() })
}

pub(super) fn schema(evidence: &Evidence, entry: &ReadEntry) -> Finding {
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => return Finding::False(Falsehood::Record(error.clone())),
    };
    if !matches!(entry.record, Record::Receipt(_)) {
        return Finding::False(Falsehood::NotAReceipt { kind: entry.record.kind() });
    }
    let Some(file) = &evidence.run else {
        return Finding::True(format!("run-hash {} (no run.json beside it)", entry.subject));
    };
    match run_file(file, entry.subject) {
        Ok(()) => Finding::True(format!("run-hash {}", entry.subject)),
        Err(falsehood) => Finding::False(falsehood),
    }
}

/// run.json must be the very bytes; if it is not, say how it differs.
fn run_file(file: &[u8], signed: Sha256Digest) -> Result<(), Falsehood> {
    let found = Sha256Digest::of(file);
    if found == signed {
        return Ok(());
    }
    canonical::from_bytes::<Run>(file, PAYLOAD_BYTES_MAX).map_err(Falsehood::RunForm)?;
    Err(Falsehood::RunHash { found, signed })
}

pub(super) fn chain(evidence: &Evidence, redaction: Option<&Redaction>, trust: &Trust, entry: &ReadEntry) -> Finding {
    let withheld = redaction.map(Redaction::records).unwrap_or_default();
    let none: &[Envelope] = &[];
    let envelopes = match &evidence.chain {
        Some(envelopes) => envelopes,
        None if !withheld.is_empty() => none,
        None => return Finding::Unknown("no chain.jsonl is part of this evidence".to_owned()),
    };
    let Ok(receipt) = entry else {
        return Finding::Unknown("the receipt cannot be read, so it has no place in a chain".to_owned());
    };
    let Some(started_ref) = receipt.record.chain().started_ref else {
        return Finding::Unknown("the record closes no intent".to_owned());
    };
    match walk(envelopes, withheld, trust, receipt, started_ref) {
        Err(falsehood) => Finding::False(falsehood),
        Ok(_) if !withheld.is_empty() => Finding::Unknown(withheld_records(withheld)),
        Ok(_) if trust.is_empty() => Finding::Unknown(format!("the records are linked, but {NO_TRUST}")),
        Ok(first) => Finding::True(format!(
            "seq {first} to {} of boundary {:?}, each linked and signed, from the intent to the receipt",
            receipt.record.chain().seq,
            receipt.record.chain().boundary
        )),
    }
}

fn withheld_records(withheld: &[WithheldRecord]) -> String {
    let (first, last) = (withheld.first().map_or(0, |one| one.seq), withheld.last().map_or(0, |one| one.seq));
    match withheld.len() {
        1 => format!("withheld: the record at seq {first}; what is shown is linked and fits its digest"),
        count => format!(
            "withheld: {count} records of seq {first} to {last}; what is shown is linked and fits their digests"
        ),
    }
}

/// Position of the first record, when all of them follow each other up to the receipt.
fn walk(
    envelopes: &[Envelope],
    withheld: &[WithheldRecord],
    trust: &Trust,
    receipt: &Entry,
    started_ref: Sha256Digest,
) -> Result<u64, Falsehood> {
    let mut walk = Walk::stretch();
    let mut first = receipt.record.chain().seq;
    let mut hidden = withheld.iter().peekable();
    let mut pass_over_below = |walk: &mut Walk, seq: u64, first: &mut u64| {
        while let Some(record) = hidden.next_if(|record| record.seq < seq) {
            walk.pass_over(record.seq, record.digest, &receipt.record).map_err(Falsehood::Chain)?;
            *first = record.seq.min(*first);
        }
        Ok::<(), Falsehood>(())
    };
    for (index, envelope) in envelopes.iter().enumerate() {
        let line = index + 1;
        let entry = Entry::read(envelope).map_err(|source| Falsehood::ChainRecord { line, source })?;
        chain_signature(envelope, trust, line, &entry.record)?;
        pass_over_below(&mut walk, entry.record.chain().seq, &mut first)?;
        walk.step(&entry).map_err(|error| Falsehood::Chain(missing_or_misplaced(error, &envelopes[line..])))?;
        first = first.min(entry.record.chain().seq);
    }
    pass_over_below(&mut walk, receipt.record.chain().seq, &mut first)?;
    walk.step(receipt).map_err(Falsehood::Chain)?;
    if let Some(record) = hidden.next() {
        return Err(Falsehood::WithheldAfter { seq: record.seq });
    }
    if !walk.was_intent(&started_ref) && !withheld.iter().any(|record| record.digest == started_ref) {
        return Err(Falsehood::IntentMissing { started_ref });
    }
    Ok(first)
}

/// What looks like a gap is disorder when the missing record comes later.
fn missing_or_misplaced(error: ChainError, rest: &[Envelope]) -> ChainError {
    match error {
        ChainError::Gap { first, last } => {
            let comes_later =
                |envelope: &Envelope| Record::parse(envelope).is_ok_and(|record| record.chain().seq == first);
            if rest.iter().any(comes_later) {
                return ChainError::Reordered { found: first, previous: last + 1 };
            }
            ChainError::Gap { first, last }
        }
        other => other,
    }
}

fn chain_signature(envelope: &Envelope, trust: &Trust, line: usize, record: &Record) -> Result<(), Falsehood> {
    if trust.is_empty() {
        return Ok(());
    }
    let (host, seq) = (record.host(), record.chain().seq);
    let Some(trusted) = trust.get(&host.keyid) else { return Err(Falsehood::ChainSigner { line, seq }) };
    if trusted.host.as_ref().is_some_and(|id| *id != host.id) {
        return Err(Falsehood::ChainSigner { line, seq });
    }
    envelope.verify(&trusted.key).map_err(|_| Falsehood::ChainSignature { line, seq })
}
