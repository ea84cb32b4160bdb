//! A batch from a stranger: archives, keyslots, sealed bytes and shards. An archive that is read has the records that its root names, and nothing
//! sealed opens but what this key has sealed; a shard that is not what its root says is refused, whatever pieces it came in.

#![no_main]

use std::sync::LazyLock;

use bpi_availability::car::{Reader, record_cid};
use bpi_availability::codec::{Encoded, Rebuild, encode};
use bpi_availability::sealing::{KeySlot, ReaderKey, open, seal};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::log::leaf::TenantId;
use libfuzzer_sys::fuzz_target;
use rand_core::{TryCryptoRng, TryRng, UnwrapErr};

/// Numbers that follow from where they begin: what is sealed here is the same in each run.
struct Counting(u64);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.try_next_u64()? as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for byte in out {
            *byte = (self.try_next_u64()? >> 56) as u8;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

const TENANT: TenantId = TenantId([7; 16]);
const DATA: &[u8] = b"a batch that everybody may read";

static READER: LazyLock<ReaderKey> = LazyLock::new(|| ReaderKey::generate(&mut UnwrapErr(Counting(1))));
static SEALED: LazyLock<(Vec<u8>, Vec<KeySlot>)> =
    LazyLock::new(|| seal(DATA, TENANT, &[READER.id()], &mut UnwrapErr(Counting(2))).expect("it can be sealed"));
static CODED: LazyLock<Encoded> =
    LazyLock::new(|| encode(Coding::new(4, 12, 9_000).expect("numbers"), &vec![5; 9_000]).expect("it can be coded"));

fuzz_target!(|bytes: &[u8]| {
    archive(bytes);
    sealed(bytes);
    shards(bytes);
});

fn archive(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let wanted = reader.records();
    let mut found = 0;
    loop {
        match reader.next_record() {
            Ok(Some((_, record))) => {
                assert!(!record_cid(&record).to_string().is_empty());
                found += 1;
            }
            Ok(None) => break assert_eq!(found, wanted),
            Err(_) => break,
        }
    }
}

fn sealed(bytes: &[u8]) {
    let (good, slots) = &*SEALED;
    if let Ok(slot) = KeySlot::from_bytes(bytes) {
        assert_eq!(slot.to_bytes(), bytes);
        if let Ok(opened) = open(good, TENANT, &slot, &READER) {
            assert!(opened == DATA && slots.contains(&slot));
        }
    }
    if let Ok(opened) = open(bytes, TENANT, &slots[0], &READER) {
        assert!(opened == DATA && bytes == good);
    }
}

fn shards(bytes: &[u8]) {
    let coded = &*CODED;
    let mut rebuild = Rebuild::new(coded.coding, coded.da_root, coded.roots.clone()).expect("roots that lead there");
    // Pieces of 1 + 1 + length: shard, stripe, bytes; or the true chunk, when the length is odd.
    let mut rest = bytes;
    while let [shard, stripe, length, tail @ ..] = rest {
        let cut = usize::from(*length).min(tail.len());
        let chunk = coded.coding.chunk_bytes(u32::from(*stripe)) as usize;
        let truth = coded.shards.get(usize::from(*shard)).filter(|_| *length % 2 == 1 && *stripe == 0);
        let piece = truth.map_or_else(|| [tail[..cut].to_vec(), vec![0; chunk]].concat()[..chunk].to_vec(), Clone::clone);
        if let Ok(true) = rebuild.add_piece(*shard, u32::from(*stripe), &piece) {
            assert!(rebuild.whole().contains(*shard));
        }
        rest = &tail[cut..];
    }
    match rebuild.data() {
        Ok(data) => assert!(rebuild.is_enough() && data == vec![5; 9_000]),
        Err(_) => assert!(!rebuild.is_enough()),
    }
}
