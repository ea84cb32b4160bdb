//! Who somebody claims to be: SPIFFE ids, certificates, trust bundles and directories from a stranger. An id is written as it was read; a leaf is of
//! the domain and the time that it was judged by; under our root nobody stands but the bearer of the seed `leaf`; a directory that our key has not
//! signed is refused, and one that it has signed says what was signed.

#![no_main]

use std::fs::File;
use std::path::PathBuf;
use std::sync::LazyLock;

use bpi_identity::directory::{Directory, Document, LiveDirectory, MEMBERS_MAX, PAYLOAD_TYPE};
use bpi_identity::pem::FILE_BYTES_MAX;
use bpi_identity::spiffe::ID_BYTES_MAX;
use bpi_identity::svid::{CERTIFICATE_BYTES_MAX, read_leaf};
use bpi_identity::{Bundle, Leaf, SpiffeId, TrustDomain, judge_leaf};
use bpi_protocol::canonical;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::key::PublicKey;
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;

/// A devnet's root, and a leaf that it has issued; their keys are gone.
const ROOT: &[u8] = include_bytes!("../seeds/svid/root");
const LEAF: &[u8] = include_bytes!("../seeds/svid/leaf");
const NOW_S: u64 = 1_800_000_000;

static DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| "bpi.devnet".parse().expect("a trust domain"));
static BUNDLE: LazyLock<Bundle> =
    LazyLock::new(|| Bundle::from_der(DOMAIN.clone(), vec![CertificateDer::from(ROOT)]).expect("a root"));
static KNOWN: LazyLock<Leaf> = LazyLock::new(|| judge_leaf(LEAF, &DOMAIN, NOW_S).expect("a leaf"));
/// Signs directories here; the fuzzer does not know it.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[42; 32]));

/// A file in memory, which readers of paths read.
static MEMORY: LazyLock<(File, PathBuf)> = LazyLock::new(|| {
    use std::os::fd::AsRawFd as _;
    let file = File::from(memfd_create("svid", MemfdFlags::CLOEXEC).expect("a file in memory"));
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        ids(text);
    }
    leaf(bytes);
    roots(bytes);
    directory(bytes);
});

fn ids(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= ID_BYTES_MAX && text.is_ascii() && text.starts_with(&id.domain().id()));
        assert_eq!(SpiffeId::new(id.domain().clone(), id.role(), id.name()).as_ref(), Ok(&id));
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_str(), text);
    }
}

fn leaf(bytes: &[u8]) {
    if let Ok(read) = read_leaf(bytes) {
        assert!(bytes.len() <= CERTIFICATE_BYTES_MAX);
        for now_s in [read.not_before_s, read.not_after_s, NOW_S] {
            let is_valid = (read.not_before_s..=read.not_after_s).contains(&now_s) && *read.id.domain() == *DOMAIN;
            assert_eq!(judge_leaf(bytes, &DOMAIN, now_s).ok(), is_valid.then(|| read.clone()));
        }
        assert_eq!(read.remaining(read.not_after_s.saturating_add(1)).as_secs(), 0);
    }
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let shown = CertificateDer::from(bytes);
    if let Ok(verified) = BUNDLE.verify(&shown, &[], NOW_S, &algorithms) {
        assert_eq!(verified, *KNOWN, "our root has issued nothing else");
    }
    // As an authority between them, which our root never had.
    if let Ok(verified) = BUNDLE.verify(&CertificateDer::from(LEAF), &[shown], NOW_S, &algorithms) {
        assert!(verified.id == KNOWN.id && verified.not_after_s <= KNOWN.not_after_s);
    }
}

fn roots(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::from_der(DOMAIN.clone(), vec![CertificateDer::from(bytes.to_vec())]) {
        assert_eq!(bundle.roots().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), [bytes]);
    }
    let (file, path) = &*MEMORY;
    file.set_len(0).and_then(|()| std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)).expect("room in memory");
    if let Ok(bundle) = Bundle::from_pem_file(DOMAIN.clone(), path) {
        assert!(bytes.len() <= FILE_BYTES_MAX && (1..=16).contains(&bundle.roots().len()));
    }
}

fn directory(bytes: &[u8]) {
    let public = PublicKey::from_verifying_key(KEY.verifying_key());
    let open = |json: &[u8]| Directory::open(json, &[public], &DOMAIN, NOW_S);
    assert!(open(bytes).is_err(), "nobody has signed it");
    // What a trusted key signs is judged like anything else.
    let signed = Envelope::sign_as(PAYLOAD_TYPE, bytes.to_vec(), &public.keyid(), |pae: &[u8]| {
        Ok::<_, bpi_protocol::envelope::EnvelopeError>(KEY.sign(pae).to_bytes())
    });
    if let Ok(signed) = signed
        && let Ok(directory) = open(&signed.to_json())
    {
        let document = directory.document().clone();
        assert_eq!(canonical::to_bytes(&document).as_deref(), Ok(bytes), "it says what was signed");
        assert!(document.members.len() <= MEMBERS_MAX && document.valid_until_s >= NOW_S);
        for (id, member) in &document.members {
            assert!(*id.domain() == *DOMAIN && member.identity_key().is_some() && member.asn > 0);
            assert_eq!(directory.lookup(id, NOW_S).as_ref(), Ok(&member));
            assert!(directory.lookup(id, document.valid_until_s + 1).is_err());
        }
        let again = document.sign(&KEY).expect("what is read can be signed");
        let live = LiveDirectory::new(directory, 0).expect("the first one");
        assert_eq!(live.replace(open(&again).expect("and read again")), Ok(false));
    }
    // One whose form is free.
    if let Ok(document) = serde_json::from_slice::<Document>(bytes)
        && let Ok(signed) = document.sign(&KEY)
        && let Ok(directory) = open(&signed)
    {
        assert_eq!(*directory.document(), document);
    }
}
