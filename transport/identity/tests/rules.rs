//! Ids, leaves, chains and bundles: what is taken and what is refused, each by its name.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::os::unix::fs::PermissionsExt as _;

use bpi_identity::bundle::BundleError;
use bpi_identity::devnet::{Ca, Made, Order};
use bpi_identity::identity::IdentityError;
use bpi_identity::pem::PemError;
use bpi_identity::spiffe::SpiffeError;
use bpi_identity::svid::read_leaf;
use bpi_identity::{Bundle, Identity, Role, SpiffeId, Svid, SvidError, TrustDomain, judge_leaf};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;

use harness::{Clock, DAY_S, NOW_S, ca, domain, id, identity, svid};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn bent(ca: &Ca, bend: impl FnOnce(&mut CertificateParams)) -> Made {
    ca.issue_bent(&id("agent/a1"), &Order::of_life(NOW_S, DAY_S), bend).unwrap()
}

fn verify(bundle: &Bundle, shown: &[CertificateDer<'_>], now_s: u64) -> Result<SpiffeId, SvidError> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    bundle.verify(&shown[0], &shown[1..], now_s, &algorithms).map(|leaf| leaf.id)
}

#[test]
fn an_id_is_read_and_written_alike() {
    for text in ["spiffe://bpi.devnet/relay/r1", "spiffe://a_b-c.0/validator/V.1-2_3", "spiffe://x/service/..."] {
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::from_str::<SpiffeId>(&format!("{text:?}")).unwrap(), id);
    }
    let id = id("pinner/p1");
    assert_eq!((id.domain(), id.role(), id.name()), (&domain(), Role::Pinner, "p1"));
}

#[test]
fn what_is_no_id_is_refused_by_name() {
    use SpiffeError as E;
    let refused = |text: &str| text.parse::<SpiffeId>().unwrap_err();
    let long = "n".repeat(2048);
    assert!(matches!(refused(&format!("spiffe://d/agent/{long}")), E::TooLong { bytes: 2065 }));
    assert!(matches!(refused("https://d/agent/a"), E::Scheme { .. }));
    assert!(matches!(refused("SPIFFE://d/agent/a"), E::Scheme { .. }));
    assert!(matches!(refused("spiffe:///agent/a"), E::DomainEmpty));
    assert!(matches!(refused("spiffe://Bpi.test/agent/a"), E::DomainCharacter { found: 'B' }));
    assert!(matches!(refused("spiffe://d:443/agent/a"), E::DomainCharacter { found: ':' }));
    assert!(matches!(refused("spiffe://me@d/agent/a"), E::DomainCharacter { found: '@' }));
    assert!(matches!(refused(&format!("spiffe://{}/agent/a", "d".repeat(256))), E::DomainTooLong { bytes: 256 }));
    for text in ["spiffe://d", "spiffe://d/", "spiffe://d/agent", "spiffe://d/agent/a/b", "spiffe://d/agent/a/"] {
        let error = refused(text);
        assert!(matches!(error, E::Path { .. } | E::Role { .. }), "{text}: {error}");
    }
    assert!(matches!(refused("spiffe://d//a"), E::Role { .. }));
    assert!(matches!(refused("spiffe://d/Agent/a"), E::Role { .. }));
    for text in ["spiffe://d/agent/", "spiffe://d/agent/.", "spiffe://d/agent/.."] {
        assert!(matches!(refused(text), E::NameDots { .. }), "{text}");
    }
    for (text, found) in [("a%20", '%'), ("a?b", '?'), ("a#b", '#'), ("ä", 'ä'), ("a\0", '\0')] {
        assert_eq!(refused(&format!("spiffe://d/agent/{text}")), E::NameCharacter { found });
    }
    assert!(SpiffeId::new(domain(), Role::Agent, &"n".repeat(2048 - 24 + 1)).is_err());
}

#[test]
fn a_leaf_that_breaks_a_rule_is_refused_by_that_rule() {
    use ExtendedKeyUsagePurpose as P;
    use KeyUsagePurpose as U;
    use SvidError as E;
    let ca = ca();
    let judge = |bend: &dyn Fn(&mut CertificateParams)| judge_leaf(bent(&ca, bend).der(), &domain(), NOW_S);
    let refused = |bend: &dyn Fn(&mut CertificateParams)| judge(bend).unwrap_err();

    let leaf = judge(&|_| {}).unwrap();
    assert_eq!((leaf.id, leaf.not_before_s, leaf.not_after_s), (id("agent/a1"), NOW_S - 60, NOW_S + DAY_S));

    let other = |p: &mut CertificateParams| p.subject_alt_names = vec![uri("spiffe://other.test/agent/a1")];
    assert!(matches!(refused(&other), E::Domain { .. }));
    assert_eq!(refused(&|p| p.subject_alt_names.clear()), E::NoUri);
    let dns = |p: &mut CertificateParams| p.subject_alt_names = vec![SanType::DnsName("a.test".try_into().unwrap())];
    assert_eq!(refused(&dns), E::NoUri);
    let two = |p: &mut CertificateParams| p.subject_alt_names.push(uri("spiffe://bpi.test/relay/r1"));
    assert_eq!(refused(&two), E::SeveralUris { found: 2 });
    let web = |p: &mut CertificateParams| p.subject_alt_names.push(uri("https://a.test"));
    assert_eq!(refused(&web), E::SeveralUris { found: 2 });
    let path = |p: &mut CertificateParams| p.subject_alt_names = vec![uri("spiffe://bpi.test/site/agent/a1")];
    assert!(matches!(refused(&path), E::Id(SpiffeError::Path { .. })));
    assert_eq!(refused(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), E::Authority);
    assert_eq!(refused(&|p| p.key_usages.clear()), E::NoKeyUsage);
    assert_eq!(refused(&|p| p.key_usages = vec![U::KeyAgreement]), E::NoDigitalSignature);
    assert_eq!(refused(&|p| p.key_usages.push(U::KeyCertSign)), E::SignsCertificates);
    assert_eq!(refused(&|p| p.key_usages.push(U::CrlSign)), E::SignsRevocations);
    assert_eq!(refused(&|p| p.extended_key_usages = vec![P::ServerAuth]), E::Purpose);
    assert_eq!(refused(&|p| p.extended_key_usages = vec![P::ClientAuth]), E::Purpose);
    // Without any purpose it is for all of them (RFC 5280, 4.2.1.12); other names are never looked at.
    assert!(judge(&|p| p.extended_key_usages.clear()).is_ok());
    assert!(judge(&|p| p.is_ca = IsCa::NoCa).is_ok());
    assert!(judge(&|p| p.subject_alt_names.push(SanType::DnsName("victim.test".try_into().unwrap()))).is_ok());

    let der = bent(&ca, |_| {}).der().to_vec();
    let at = |now_s| judge_leaf(&der, &domain(), now_s);
    assert!(at(NOW_S - 60).is_ok() && at(NOW_S + DAY_S).is_ok());
    assert!(matches!(at(NOW_S - 61), Err(E::NotYetValid { .. })));
    assert!(matches!(at(NOW_S + DAY_S + 1), Err(E::Expired { .. })));
    assert!(matches!(read_leaf(&[&der[..], &[0]].concat()), Err(E::NotCertificate { .. })));
    assert!(matches!(read_leaf(&der[..der.len() - 1]), Err(E::NotCertificate { .. })));
    assert!(matches!(read_leaf(&vec![0x30; 9000]), Err(E::TooLong { bytes: 9000 })));
    assert!(matches!(read_leaf(&[]), Err(E::NotCertificate { .. })));
}

#[test]
fn only_a_chain_up_to_a_valid_root_holds() {
    let (ours, theirs) = (ca(), ca());
    let bundle = ours.bundle().unwrap();
    let leaf = |ca: &Ca| vec![bent(ca, |_| {}).der().clone()];
    assert_eq!(verify(&bundle, &leaf(&ours), NOW_S).unwrap(), id("agent/a1"));
    assert!(matches!(verify(&bundle, &leaf(&theirs), NOW_S), Err(SvidError::UnknownRoot { .. })));
    // Their root does not help, nor does a leaf in the place of an authority.
    let with_root = vec![leaf(&theirs)[0].clone(), theirs.root().clone()];
    assert!(matches!(verify(&bundle, &with_root, NOW_S), Err(SvidError::UnknownRoot { .. })));
    let with_leaf = vec![leaf(&ours)[0].clone(), leaf(&ours)[0].clone()];
    assert_eq!(verify(&bundle, &with_leaf, NOW_S), Err(SvidError::Issuer));
    let long = vec![ours.root().clone(); 5];
    assert!(matches!(verify(&bundle, &long, NOW_S), Err(SvidError::ChainTooLong { found: 5 })));

    // Both roots: an authority that is replaced.
    let both = Bundle::from_der(domain(), vec![ours.root().clone(), theirs.root().clone()]).unwrap();
    assert!(verify(&both, &leaf(&ours), NOW_S).is_ok() && verify(&both, &leaf(&theirs), NOW_S).is_ok());

    // A root that has ended stands above nothing, even what has not ended.
    let short = Ca::generate(&domain(), NOW_S, 100).unwrap();
    let both = Bundle::from_der(domain(), vec![ours.root().clone(), short.root().clone()]).unwrap();
    let late = vec![bent(&short, |_| {}).der().clone()];
    assert!(verify(&both, &late, NOW_S + 100).is_ok());
    assert!(matches!(verify(&both, &late, NOW_S + 101), Err(SvidError::UnknownRoot { .. })));
    assert!(verify(&both, &leaf(&ours), NOW_S + 101).is_ok());
}

#[test]
fn an_authority_below_the_root_needs_the_right_to_sign() {
    // The devnet's roots have pathLenConstraint 0, so a chain of three needs a root of its own.
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let top = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let bundle = Bundle::from_der(domain(), vec![top.der().clone()]).unwrap();
    let chain = |usages: Vec<KeyUsagePurpose>, is_ca: IsCa| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "between");
        params.is_ca = is_ca;
        params.key_usages = usages;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(NOW_S + 100);
        let between = rcgen::CertifiedIssuer::signed_by(params, key, &top).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri("spiffe://bpi.test/agent/a1")];
        vec![params.signed_by(&key, &between).unwrap().der().clone(), between.der().clone()]
    };
    let authority = || IsCa::Ca(BasicConstraints::Constrained(0));
    let shown = chain(vec![KeyUsagePurpose::KeyCertSign], authority());
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let leaf = bundle.verify(&shown[0], &shown[1..], NOW_S, &algorithms).unwrap();
    assert_eq!(leaf.not_after_s, NOW_S + 100, "the proof ends with its first certificate");
    assert_eq!((leaf.remaining(NOW_S).as_secs(), leaf.remaining(NOW_S + 101).as_secs()), (101, 0));
    assert!(verify(&bundle, &chain(vec![KeyUsagePurpose::KeyCertSign], authority()), NOW_S).is_ok());
    for broken in [
        chain(vec![KeyUsagePurpose::CrlSign], authority()),
        chain(vec![], authority()),
        chain(vec![KeyUsagePurpose::KeyCertSign], IsCa::ExplicitNoCa),
    ] {
        assert_eq!(verify(&bundle, &broken, NOW_S), Err(SvidError::Issuer));
    }
}

#[test]
fn a_bundle_holds_authorities_of_its_domain_only() {
    let ca = ca();
    let bundle = |roots: Vec<CertificateDer<'static>>| Bundle::from_der(domain(), roots).unwrap_err();
    assert!(matches!(bundle(vec![]), BundleError::Empty { .. }));
    assert_eq!(bundle(vec![ca.root().clone(); 17]), BundleError::TooMany { found: 17 });
    let leaf = svid(&ca, "agent/a1").chain()[0].clone();
    assert_eq!(bundle(vec![ca.root().clone(), leaf]), BundleError::NoAuthority { index: 1 });
    let other = Ca::generate(&"other.test".parse().unwrap(), NOW_S, DAY_S).unwrap();
    assert!(matches!(bundle(vec![other.root().clone()]), BundleError::Domain { index: 0, .. }));
    assert!(matches!(bundle(vec![CertificateDer::from(vec![1, 2, 3])]), BundleError::Root { index: 0, .. }));
}

#[test]
fn an_identity_stays_who_it_is_and_refuses_what_peers_would_refuse() {
    let (ours, theirs) = (ca(), ca());
    let clock = Clock::at(NOW_S);
    let me = Identity::with_time(svid(&ours, "relay/r1"), ours.bundle().unwrap(), clock.shared()).unwrap();
    let changed = me.changed();
    let refused = |svid: Svid, ca: &Ca| me.replace(svid, ca.bundle().unwrap()).unwrap_err();

    assert!(matches!(refused(svid(&ours, "relay/r2"), &ours), IdentityError::Renamed { .. }));
    assert!(matches!(refused(svid(&ours, "relay/r1"), &theirs), IdentityError::Svid(SvidError::UnknownRoot { .. })));
    let (one, two) = (svid(&ours, "relay/r1"), ours.issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S)).unwrap());
    let torn = Svid::from_der(one.chain().to_vec(), two.key_der()).unwrap();
    assert_eq!(refused(torn, &ours), SvidError::KeyMismatch.into());
    let no_key = Svid::from_der(one.chain().to_vec(), vec![1, 2, 3].into()).unwrap();
    assert!(matches!(refused(no_key, &ours), IdentityError::Svid(SvidError::Key { .. })));
    clock.set(NOW_S + DAY_S + 1);
    assert!(matches!(refused(one.clone(), &ours), IdentityError::Svid(SvidError::Expired { .. })));
    clock.set(NOW_S);
    assert!(!changed.has_changed().unwrap());

    // The same again is no change; another one is, and a wider bundle is.
    let held = me.current();
    assert!(!me.replace(held.svid().clone(), held.bundle().clone()).unwrap());
    assert!(!changed.has_changed().unwrap());
    assert!(me.replace(one, ours.bundle().unwrap()).unwrap());
    assert!(changed.has_changed().unwrap());
    let both = Bundle::from_der(domain(), vec![ours.root().clone(), theirs.root().clone()]).unwrap();
    assert!(me.replace(svid(&theirs, "relay/r1"), both).unwrap());
    assert!(me.peer_of(svid(&ours, "agent/a1").chain()).is_ok());
    assert!(me.peer_of(svid(&theirs, "agent/a1").chain()).is_ok());
    assert_eq!(me.peer_of(&[]), Err(SvidError::NoCertificate));
}

#[test]
fn keys_are_in_no_debug_text() {
    let ca = ca();
    let made = ca.issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S)).unwrap();
    let me = Identity::with_time(made.svid().unwrap(), ca.bundle().unwrap(), Clock::at(NOW_S).shared()).unwrap();
    let text = format!("{:?} {:?} {me:?}", made.svid().unwrap(), me.current());
    let key = made.key_der();
    assert!(!text.contains(&format!("{:?}", &key[40..44]).trim_matches(['[', ']']).to_owned()), "{text}");
    assert!(!text.contains("key"), "{text}");
    assert!(text.len() < 1200, "{text}");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, chain, key) = (folder.path().join("a.pem"), folder.path().join("c.pem"), folder.path().join("k.pem"));
    let made = ca().issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S)).unwrap();
    let write = |path: &std::path::Path, text: &str, mode| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let pem = made.pem();
    let split = pem.find("-----BEGIN CERT").unwrap();
    let read = |key| match Svid::from_pem_files(if key { &chain } else { &path }, key.then_some(&key_path(&folder))) {
        Ok(svid) => Ok(svid.id().clone()),
        Err(SvidError::Pem(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    write(&path, &pem, 0o600);
    assert_eq!(read(false), Ok(id("relay/r1")));
    write(&path, &pem, 0o400);
    assert_eq!(read(false), Ok(id("relay/r1")));
    for mode in [0o640, 0o604, 0o660, 0o644] {
        write(&path, &pem, mode);
        assert!(matches!(read(false), Err(PemError::Mode { mode: found, .. }) if found == mode));
    }
    write(&chain, &pem[split..], 0o644);
    write(&key, &pem[..split], 0o600);
    assert_eq!(read(true), Ok(id("relay/r1")));
    write(&key, &pem[..split], 0o644);
    assert!(matches!(read(true), Err(PemError::Mode { .. })));
    write(&chain, &pem, 0o644);
    assert!(matches!(read(true), Err(PemError::UnwantedKey { .. })));
    write(&path, &pem[split..], 0o600);
    assert!(matches!(read(false), Err(PemError::Keys { found: 0, .. })));
    write(&path, &[&pem[..], &pem[..]].concat(), 0o600);
    assert!(matches!(read(false), Err(PemError::Keys { found: 2, .. })));
    write(&path, &pem[..split], 0o600);
    assert!(matches!(read(false), Err(PemError::NoCertificate { .. })));
    write(&path, &"-".repeat(200 * 1024), 0o600);
    assert!(matches!(read(false), Err(PemError::TooLong { .. })));
    write(&path, &pem[split..].repeat(17), 0o600);
    assert!(matches!(read(false), Err(PemError::TooMany { .. })));
    let _ = std::fs::remove_file(&path);
    assert!(matches!(read(false), Err(PemError::Read { .. })));
}

fn key_path(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("k.pem")
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pem");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Only root can give a file away, so only root can run the rest.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        let refused = Svid::from_pem_files(&path, None).unwrap_err();
        assert!(matches!(refused, SvidError::Pem(PemError::Owner { owner: 65_534, .. })), "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_text_is_an_id_is_written_back(text in "spiffe://[a-z.]{0,4}/(agent|relay|x)/[a-zA-Z.%/]{0,4}|\\PC{0,40}") {
        if let Ok(id) = text.parse::<SpiffeId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn garbage_is_never_a_leaf(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_leaf(&bytes).is_err());
        prop_assert!(Bundle::from_der(domain(), vec![CertificateDer::from(bytes)]).is_err());
    }
}

#[test]
fn a_certificate_with_any_byte_changed_is_refused() {
    let ca = ca();
    let me = identity(&ca, "relay/r1");
    let der = svid(&ca, "agent/a1").chain()[0].to_vec();
    for at in 0..der.len() {
        for bit in [0x01, 0x80] {
            let mut broken = der.clone();
            broken[at] ^= bit;
            assert!(me.peer_of(&[CertificateDer::from(broken)]).is_err(), "byte {at}");
        }
    }
    let domain: TrustDomain = domain();
    for end in 0..der.len() {
        assert!(judge_leaf(&der[..end], &domain, NOW_S).is_err());
    }
}
