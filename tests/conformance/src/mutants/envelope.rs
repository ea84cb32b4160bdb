//! What somebody without the key can do to an envelope. Every verifier must refuse all of it.

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::verify::Level;

use super::{Layer, Mutant, Raw, Truth};

pub(super) fn mutants(truth: &Truth) -> Vec<Mutant> {
    let mut made = Vec::new();
    let mut add = |name: &str, bend: &dyn Fn(&mut Raw)| {
        let mut raw = Raw::of(truth.receipt());
        bend(&mut raw);
        let files = truth.with_bundle(raw.bundle());
        made.push(Mutant {
            name: name.to_owned(),
            layer: Layer::Envelope,
            level: Level::Signed,
            files,
            raw: Some(raw),
        });
    };
    signatures(truth, &mut add);
    payloads(truth, &mut add);
    words(&mut add);
    made
}

type Add<'a> = dyn FnMut(&str, &dyn Fn(&mut Raw)) + 'a;

fn signatures(truth: &Truth, add: &mut Add<'_>) {
    let stranger = &truth.stranger;
    add("signed by a stranger", &|raw| {
        raw.signature = stranger.sign(&raw.pae()).to_vec();
        raw.keyid = stranger.public_key().keyid();
    });
    add("signed by a stranger in the host's name", &|raw| raw.signature = stranger.sign(&raw.pae()).to_vec());
    add("signature: first bit of R flipped", &|raw| raw.signature[0] ^= 1);
    add("signature: middle bit of R flipped", &|raw| raw.signature[16] ^= 0x10);
    add("signature: first bit of S flipped", &|raw| raw.signature[32] ^= 1);
    add("signature: top bit of S flipped", &|raw| raw.signature[63] ^= 0x80);
    add("signature: R and S swapped", &|raw| raw.signature.rotate_left(32));
    add("signature: all zero", &|raw| raw.signature = vec![0; 64]);
    add("signature: neutral R and S zero", &|raw| {
        raw.signature = vec![0; 64];
        raw.signature[0] = 1;
    });
    add("signature: all ones", &|raw| raw.signature = vec![0xff; 64]);
    add("signature: S plus the group order", &|raw| add_group_order(&mut raw.signature));
    add("signature: one byte short", &|raw| raw.signature.truncate(63));
    add("signature: one byte long", &|raw| raw.signature.push(0));
    add("signature: empty", &|raw| raw.signature.clear());
    add("signature of the intent", &|raw| raw.signature = truth.records[0].signature().to_vec());
    add("signature over the payload without its type", &|raw| raw.signature = truth.host.sign(&raw.payload).to_vec());
    add("signature over the digest of the PAE", &|raw| {
        raw.signature = truth.host.sign(Sha256Digest::of(&raw.pae()).as_bytes()).to_vec();
    });
}

/// S + L is the same signature by the curve's equation; RFC 8032 forbids this spelling.
fn add_group_order(signature: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (digit, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*digit) + u16::from(order) + carry;
        *digit = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
}

fn payloads(truth: &Truth, add: &mut Add<'_>) {
    add("payload: first byte flipped", &|raw| raw.payload[0] ^= 1);
    add("payload: bit of a digest flipped", &|raw| {
        let at = find(&raw.payload, b"\"sha256\":\"") + 12;
        raw.payload[at] = if raw.payload[at] == b'0' { b'1' } else { b'0' };
    });
    add("payload: last byte flipped", &|raw| *raw.payload.last_mut().expect("a statement is not empty") ^= 1);
    add("payload: cut in half", &|raw| raw.payload.truncate(raw.payload.len() / 2));
    add("payload: a newline more", &|raw| raw.payload.push(b'\n'));
    add("payload: nothing", &|raw| raw.payload.clear());
    add("payload of the intent", &|raw| raw.payload = truth.records[0].payload().to_vec());
    add("payload: same JSON with blanks", &|raw| replace(raw, b",\"subject\"", b", \"subject\""));
    let swap = |from: &'static [u8], to: &'static [u8]| move |raw: &mut Raw| replace(raw, from, to);
    add("payload: exit code 0 made 1", &swap(b"\"exitCode\":0", b"\"exitCode\":1"));
    add("payload: sequence number replayed", &swap(b"\"seq\":10", b"\"seq\":9"));
    add("payload: predicateType of an intent", &swap(b"execution-receipt/v1\"", b"execution-intent/v1\""));
    add("payload: another host", &swap(b"bpi.example/host/a\"", b"bpi.example/host/b\""));
    add("payload: a member more", &swap(b"\"predicate\":{", b"\"predicate\":{\"a\":1,"));
    add("payload: an integer made a float", &swap(b"\"exitCode\":0", b"\"exitCode\":0.0"));
    add("payload: a denial left out", &swap(b"{\"count\":2,\"errno\":\"EPERM\",\"syscall\":\"mount\"},", b""));
}

fn words(add: &mut Add<'_>) {
    add("payloadType: text/plain", &|raw| raw.payload_type = "text/plain".to_owned());
    add("payloadType: a space more", &|raw| raw.payload_type.push(' '));
    add("payloadType: one letter moved into the payload", &|raw| {
        let letter = raw.payload_type.pop().expect("a type is not empty");
        raw.payload.insert(0, letter as u8);
    });
    add("payloadType: upper case", &|raw| raw.payload_type = raw.payload_type.to_uppercase());
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|window| window == wanted);
    found.expect("the story's statement holds what its mutants replace")
}

fn replace(raw: &mut Raw, from: &[u8], to: &[u8]) {
    let at = find(&raw.payload, from);
    raw.payload.splice(at..at + from.len(), to.iter().copied());
}
