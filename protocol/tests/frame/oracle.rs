//! The cipher against the crate that has XChaCha20-Poly1305 as a whole.

use bpi_protocol::frame::cipher::Phase;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_phase_is_xchacha20_poly1305(
        material in prop::array::uniform32(any::<u8>()),
        prefix in prop::array::uniform16(any::<u8>()),
        seq in any::<u64>(),
        associated in prop::collection::vec(any::<u8>(), 0..128),
        text in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut whole = [0; 64];
        whole[..32].copy_from_slice(&material);
        whole[32..48].copy_from_slice(&prefix);
        let phase = Phase::new(&whole);
        let mut frame = [associated.as_slice(), &text].concat();
        phase.seal(seq, &mut frame, associated.len());

        let mut nonce = [0; 24];
        nonce[..16].copy_from_slice(&prefix);
        nonce[16..].copy_from_slice(&seq.to_be_bytes());
        let mut theirs = text.clone();
        let cipher = XChaCha20Poly1305::new(&material.into());
        let tag = cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &associated, theirs.as_mut_slice().into())
            .unwrap();
        theirs.extend_from_slice(&tag);
        prop_assert_eq!(&frame[associated.len()..], theirs.as_slice());
        prop_assert_eq!(phase.open(seq, &mut frame, associated.len()).unwrap(), text.as_slice());
    }
}
