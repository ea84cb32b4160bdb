//! Trust files.

use bpi_conformance::mutants::Truth;
use bpi_conformance::story::Signer;
use bpi_protocol::trust::{TRUST_BYTES_MAX, Trust, TrustError};

fn registry(hosts: &[(&str, &str)]) -> Vec<u8> {
    let hosts: Vec<_> = (hosts.iter())
        .map(|(id, name)| {
            let pem = Signer::new(name).public_key().to_spki_pem().replace('\n', "\\n");
            format!("{{\"id\":\"{id}\",\"publicKey\":\"{pem}\"}}")
        })
        .collect();
    format!("{{\"hosts\":[{}]}}", hosts.join(",")).into_bytes()
}

#[test]
fn a_registry_or_a_single_key_is_a_trust_file() {
    assert!(Trust::parse(&Truth::default().trust_json()).is_ok());
    assert!(Trust::parse(Signer::new("a").public_key().to_spki_pem().as_bytes()).is_ok());
    assert!(Trust::parse(&registry(&[("spiffe://x/a", "a"), ("spiffe://x/a", "b"), ("spiffe://x/c", "c")])).is_ok());
}

#[test]
fn each_fault_of_a_trust_file_has_its_own_error() {
    let parse = |bytes: &[u8]| Trust::parse(bytes).unwrap_err();
    assert!(matches!(parse(&vec![b' '; TRUST_BYTES_MAX + 1]), TrustError::TooLong { .. }));
    assert!(matches!(parse(b""), TrustError::Form { .. }));
    assert!(matches!(parse(b"\xff"), TrustError::Form { .. }));
    assert!(matches!(parse(b"{\"hosts\":[],\"more\":1}"), TrustError::Form { .. }));
    assert!(matches!(parse(b"{\"hosts\":[]}"), TrustError::NoHost));
    assert!(matches!(parse(&registry(&[("host-a", "a")])), TrustError::HostId { .. }));
    assert!(matches!(parse(&registry(&[("spiffe://x/a", "a"), ("spiffe://x/b", "a")])), TrustError::SharedKey { .. }));
    let key = b"{\"hosts\":[{\"id\":\"spiffe://x/a\",\"publicKey\":\"none\"}]}";
    assert!(matches!(parse(key), TrustError::HostKey { .. }));
    let pem = Signer::new("a").public_key().to_spki_pem();
    assert!(matches!(parse(pem.repeat(2).as_bytes()), TrustError::SeveralKeys { found: 2 }));
    let private = pem.replace("PUBLIC", "PRIVATE");
    assert!(matches!(parse(private.as_bytes()), TrustError::Key(_)));
}
