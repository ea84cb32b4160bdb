//! What a peer of a proxy sends, by its first byte: capsules, frames of HTTP/3, settings, fields, heads of HTTP/1.1, paths. Where a stream is cut
//! changes nothing, what is kept is within its limit, what we write is read back, and a tunnel leads nowhere but to a host and a port.

#![no_main]

use bpi_masque::fuzz;
use bpi_masque::{MasqueError, PATH_PREFIX, PAYLOAD_BYTES_MAX, Target, is_public};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Limit of a head in the readers below; a peer's is 8 KiB.
const HEAD_BYTES_MAX: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => capsules(bytes),
        1 => frames(bytes),
        2 => fields(bytes),
        3 => head(bytes),
        4 => path(bytes),
        _ => settings(bytes),
    }
});

fn capsules(bytes: &[u8]) {
    let (datagrams, whole) = fuzz::capsules(bytes, bytes.len());
    for piece_bytes in [1, 7] {
        assert_eq!(fuzz::capsules(bytes, piece_bytes), (datagrams.clone(), whole));
    }
    for datagram in datagrams {
        let Some(payload) = fuzz::payload(datagram) else { continue };
        assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let (again, whole) = fuzz::capsules(&fuzz::capsule(&payload), 3);
        assert!(whole && again.len() == 1);
        assert_eq!(fuzz::payload(again[0].clone()), Some(payload));
    }
    assert_eq!(fuzz::type_and_length(bytes).is_some(), two_integers(bytes));
    // As QUIC brings it.
    drop(fuzz::payload(Bytes::copy_from_slice(bytes)));
}

fn two_integers(bytes: &[u8]) -> bool {
    let Some((_, first)) = fuzz::integer(bytes) else { return false };
    fuzz::integer(&bytes[first..]).is_some()
}

fn frames(bytes: &[u8]) {
    let (all, whole) = fuzz::frames(bytes, bytes.len(), HEAD_BYTES_MAX);
    for piece_bytes in [1, 7] {
        assert_eq!(fuzz::frames(bytes, piece_bytes, HEAD_BYTES_MAX), (all.clone(), whole));
    }
    for (name, content) in all {
        match name {
            "headers" => fields(&content),
            "settings" => settings(&content),
            _ => {}
        }
    }
}

fn fields(bytes: &[u8]) {
    let Some(fields) = fuzz::fields(bytes, HEAD_BYTES_MAX) else { return };
    let counted: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(counted <= HEAD_BYTES_MAX, "a section takes what it is counted with");
    let texts: Option<Vec<(&str, &str)>> = fields
        .iter()
        .map(|(name, value)| Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?)))
        .collect();
    if let Some(texts) = texts {
        let (sent, _) = fuzz::frames(&fuzz::headers(&fuzz::section(&texts)), 5, 16 * HEAD_BYTES_MAX);
        assert_eq!(fuzz::fields(&sent[0].1, HEAD_BYTES_MAX).as_ref(), Some(&fields));
    }
    judged(fuzz::request(&fields));
    match fuzz::answer(&fields) {
        Ok(_) | Err(MasqueError::Answer { .. }) => {}
        Err(MasqueError::Refused { status, error }) => {
            assert!((300..1000).contains(&status));
            let is_plain = |text: String| text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 64;
            assert!(error.is_none_or(is_plain), "what a log gets is plain");
        }
        Err(error) => panic!("{error}"),
    }
}

fn head(bytes: &[u8]) {
    if let Some(asked) = fuzz::head(bytes) {
        judged(asked);
    }
}

fn judged(asked: Result<Option<Target>, u16>) {
    match asked {
        Ok(Some(target)) => leads_to_a_host(&target),
        Ok(None) => {}
        Err(status) => assert!((400..600).contains(&status)),
    }
}

fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for path in [text.to_owned(), format!("{PATH_PREFIX}{text}")] {
        if let Ok(target) = Target::from_path(&path) {
            leads_to_a_host(&target);
        }
    }
}

fn leads_to_a_host(target: &Target) {
    assert_eq!(Target::from_path(&target.to_path()).as_ref(), Ok(target));
    assert!(target.port() > 0);
    match target.ip() {
        // Whatever the form in which it was written.
        Some(ip) => assert!(!(is_public(ip) && (ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()))),
        None => {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            assert!(target.host().bytes().all(plain), "nothing else reaches a resolver");
        }
    }
}

fn settings(bytes: &[u8]) {
    let Some(ours) = fuzz::settings(bytes) else { return };
    let (sent, whole) = fuzz::frames(&fuzz::settings_frame(ours, HEAD_BYTES_MAX), 2, HEAD_BYTES_MAX);
    assert!(whole && sent.len() == 1 && sent[0].0 == "settings");
    assert_eq!(fuzz::settings(&sent[0].1), Some(ours));
}
