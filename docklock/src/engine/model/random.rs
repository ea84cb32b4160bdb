//! The randomness of a caged run: ChaCha20 key streams (RFC 8439), one for each opener, all of them from one seed.
//!
//! A guest never meets the host's entropy. Who opens a source (the first getrandom(2) of a task, an open of /dev/urandom, AT_RANDOM of an
//! exec) gets the next opener number and with it a stream of its own, so one task's reads do not shift another's.
//! The counter is 64 bits wide (the original ChaCha20: 2^70 bytes a stream), and the nonce is the opener number, little endian; so for the
//! first 256 GiB a stream equals RFC 8439 with the nonce `00 00 00 00 ‖ opener`.
//!
//! Absent on purpose: reseeding and any look at the host. Equal seed and opener give equal bytes, for ever.

use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use nix::errno::Errno;

/// `GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE` of linux/random.h.
const GRND_KNOWN: u32 = 0x7;
/// `GRND_RANDOM | GRND_INSECURE`: the kernel refuses the two together.
const GRND_CONTRADICTION: u32 = 0x6;
/// `MAX_RW_COUNT` of linux/fs.h: what one call can transfer at most.
const TRANSFER_BYTES_MAX: u64 = 0x7fff_f000;

/// The key stream of one opener.
pub struct KeyStream {
    cipher: ChaCha20Legacy,
}

impl KeyStream {
    /// The stream that `opener` reads under `seed`, at its beginning.
    pub fn new(seed: &[u8; 32], opener: u64) -> Self {
        Self { cipher: ChaCha20Legacy::new(seed.into(), &opener.to_le_bytes().into()) }
    }

    /// Overwrites `out` with the next `out.len()` bytes of the stream. Where one call ends and the next begins does not change the bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
        self.cipher.apply_keystream(out);
    }

    /// The next 8 bytes as a little-endian number.
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random UUID (version 4, RFC 9562 section 5.4) of the next 16 bytes, as /proc/sys/kernel/random/uuid writes it, without a newline.
    pub fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex::encode(bytes);
        format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl std::fmt::Debug for KeyStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyStream").finish_non_exhaustive()
    }
}

/// How many bytes a getrandom(2) with these arguments gives at most.
///
/// # Errors
/// `EINVAL` for an unknown flag, and for GRND_RANDOM with GRND_INSECURE (getrandom(2), ERRORS).
pub fn getrandom_length(length: u64, flags: u32) -> Result<u64, Errno> {
    if flags & !GRND_KNOWN != 0 || flags & GRND_CONTRADICTION == GRND_CONTRADICTION {
        return Err(Errno::EINVAL);
    }
    Ok(length.min(TRANSFER_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_block(seed: [u8; 32], opener: u64) -> String {
        let mut block = [0; 64];
        KeyStream::new(&seed, opener).fill(&mut block);
        hex::encode(block)
    }

    /// RFC 8439, appendix A.1, test vectors 1 and 5.
    #[test]
    fn a_stream_is_the_chacha20_of_rfc_8439() {
        let first = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586";
        let fifth = "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c78a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d";
        assert_eq!(first_block([0; 32], 0), first);
        assert_eq!(first_block([0; 32], 0x0200_0000_0000_0000), fifth);
    }

    #[test]
    fn openers_and_seeds_have_streams_of_their_own() {
        assert_ne!(first_block([0; 32], 0), first_block([0; 32], 1));
        assert_ne!(first_block([0; 32], 0), first_block([1; 32], 0));
    }

    #[test]
    fn a_uuid_has_version_4_and_variant_1() {
        let uuid = KeyStream::new(&[7; 32], 3).uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }

    #[test]
    fn getrandom_refuses_what_the_kernel_refuses() {
        assert_eq!(getrandom_length(16, 0), Ok(16));
        assert_eq!(getrandom_length(16, 3), Ok(16));
        assert_eq!(getrandom_length(16, 4), Ok(16));
        assert_eq!(getrandom_length(16, 6), Err(Errno::EINVAL));
        assert_eq!(getrandom_length(16, 8), Err(Errno::EINVAL));
        assert_eq!(getrandom_length(u64::MAX, 0), Ok(0x7fff_f000));
    }

    proptest! {
        #[test]
        fn however_a_read_is_cut_the_bytes_are_the_same(cuts in proptest::collection::vec(0_usize..200, 0..12)) {
            let total = cuts.iter().sum();
            let mut whole = vec![1; total];
            KeyStream::new(&[9; 32], 5).fill(&mut whole);
            let mut stream = KeyStream::new(&[9; 32], 5);
            let pieces: Vec<u8> = cuts.iter().flat_map(|cut| {
                let mut piece = vec![2; *cut];
                stream.fill(&mut piece);
                piece
            }).collect();
            prop_assert_eq!(whole, pieces);
        }
    }
}
