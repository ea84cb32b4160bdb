//! What neighbours say beside frames, certificates of prekeys and receipts: what is read is what we would have written, no prekey but the one that
//! its identity certified is taken, nobody is greeted by a stranger's signature, and a receipt names no frame twice or beyond its window.

#![no_main]

use bpi_protocol::frame::header::FRAME_BYTES_MAX;
use bpi_protocol::frame::key::Prekey;
use bpi_protocol::frame::receipt::{RELAYS_MAX, Receipt};
use bpi_protocol::frame::window::WINDOW;
use bpi_protocol::hop::{HEADLINE_BYTES_MAX, Hop, LENGTH_BYTES, MESSAGE_BYTES_MAX, frame_head};
use libfuzzer_sys::fuzz_target;

/// Of the seed `prekey`, which is that of protocol/tests/vectors/frame.json.
const NETWORK: u64 = 0x1122_3344_5566_7788;
const UNIX_S: u64 = 1_790_000_000;
/// Whose it is. The seed `hello` is signed for a session that exports nines.
const IDENTITY: [u8; 32] = *b"\x81\x39\x77\x0e\xa8\x7d\x17\x5f\x56\xa3\x54\x66\xc3\x4c\x7e\xcc\xcb\x8d\x8a\x91\xb4\xee\x37\xa2\x5d\xf6\x0f\x5b\x8f\xc9\xb3\x94";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Hop::from_body(bytes) {
        let wire = message.to_wire();
        assert_eq!(&wire[LENGTH_BYTES..], bytes);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        match message {
            Hop::Hello(hello) => {
                assert!(!hello.holds(&[8; 32]), "greeted for a session that nobody had");
                assert!(!hello.holds(&[9; 32]) || hello.identity == IDENTITY);
                prekey(&hello.prekey);
            }
            Hop::Announce(bytes) => prekey(&bytes),
            Hop::Found { prekey: bytes, .. } => prekey(&bytes),
            Hop::Frame(frame) => {
                assert!(frame.len() <= FRAME_BYTES_MAX);
                assert_eq!([&frame_head(frame.len()), frame.as_slice()].concat(), wire);
            }
            Hop::Publish { body, .. } | Hop::Headline { body, .. } => assert!(body.len() <= HEADLINE_BYTES_MAX),
            Hop::Welcome { .. } | Hop::Lookup(_) | Hop::Drain { .. } | Hop::Subscribe => {}
        }
    }
    prekey(bytes);
    if let Ok(receipt) = Receipt::from_bytes(bytes) {
        assert_eq!(receipt.to_bytes(), bytes);
        assert!(receipt.carried.len() <= RELAYS_MAX);
        let (complete, next) = (receipt.complete, receipt.next());
        assert!((complete..=complete + WINDOW).contains(&next));
        assert!(complete == 0 || receipt.has(complete - 1));
        assert!(next == 0 || receipt.has(next - 1), "the last one has come");
        assert!((next..complete.saturating_add(WINDOW + 64)).all(|seq| !receipt.has(seq)));
        assert!(!receipt.is_signed_by(&IDENTITY, &[7; 32]), "signed for a session that nobody opened");
    }
});

/// A certificate that holds is the one that was made.
fn prekey(bytes: &[u8]) {
    if let Ok(prekey) = Prekey::from_bytes(bytes, NETWORK, UNIX_S) {
        assert_eq!(prekey.to_bytes(), bytes);
        assert_eq!(prekey.identity, IDENTITY, "nobody else has certified one");
        assert!(prekey.is_good_at(UNIX_S) && !prekey.is_good_at(UNIX_S + 3 * 3600));
    }
}
