//! `bpi-devnet-ca` as its users meet it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bpi_identity::devnet::{DevnetError, Folder, Order};
use bpi_identity::directory::{Directory, Document, Member};
use bpi_identity::{Bundle, Identity, Svid};
use bpi_protocol::key::PublicKey;
use rustls::time_provider::DefaultTimeProvider;
use serde_json::Value;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bpi-devnet-ca")).args(arguments).current_dir(folder).output().unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[&["--format", "json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_authority_is_made_issues_rotates_and_shows() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let id = "spiffe://bpi.devnet/relay/r1";
    done(place, &["init", "--dir", "ca", "--domain", "bpi.devnet"]);
    assert!(refused(place, &["init", "--dir", "ca", "--domain", "bpi.devnet"]).contains("not made twice"));
    for (file, wanted) in [("ca.pem", 0o600), ("directory.key", 0o600), ("bundle.pem", 0o644), ("lock", 0o600)] {
        assert_eq!(mode(&place.join("ca").join(file)), wanted, "{file}");
    }

    let issued = done(place, &["issue", "--dir", "ca", "--id", id, "--seconds", "600", "--dns", "relay.example"]);
    assert_eq!(issued["file"], "ca/relay/r1.pem");
    let path = place.join("ca/relay/r1.pem");
    assert_eq!(mode(&path), 0o600);
    let inode = std::fs::metadata(&path).unwrap().ino();
    let read = || {
        let svid = Svid::from_pem_files(&path, None).unwrap();
        let bundle = Bundle::from_pem_file(svid.id().domain().clone(), &place.join("ca/bundle.pem")).unwrap();
        (svid, bundle)
    };
    let (svid, bundle) = read();
    let me = Identity::with_time(svid, bundle, Arc::new(DefaultTimeProvider)).unwrap();
    assert_eq!(me.id().to_string(), id);

    assert_eq!(done(place, &["rotate", "--dir", "ca"])["roots"], 2);
    done(place, &["issue", "--dir", "ca", "--id", id, "--days", "1"]);
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), inode, "replaced by a rename");
    let (svid, bundle) = read();
    assert!(me.replace(svid, bundle).unwrap());

    let shown = done(place, &["show", "ca/relay/r1.pem"]);
    assert_eq!(
        (&shown[0]["kind"], &shown[0]["state"], &shown[0]["uris"][0]),
        (&"svid".into(), &"valid".into(), &id.into())
    );
    let shown = done(place, &["show", "ca/bundle.pem"]);
    assert_eq!((shown.as_array().unwrap().len(), &shown[1]["kind"]), (2, &"root".into()));
    let text = String::from_utf8(run(place, &["show", "ca/relay/r1.pem"]).stdout).unwrap();
    assert!(text.contains(id) && !text.contains("PRIVATE"), "{text}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_sentence() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let id = "spiffe://bpi.devnet/relay/r1";
    assert!(refused(place, &["issue", "--dir", "none", "--id", id]).contains("none/lock cannot be written"));
    done(place, &["init", "--dir", "ca", "--domain", "bpi.devnet", "--days", "2"]);
    let other = refused(place, &["issue", "--dir", "ca", "--id", "spiffe://other/relay/r1"]);
    assert!(other.contains("is not of bpi.devnet"), "{other}");
    assert!(refused(place, &["issue", "--dir", "ca", "--id", id, "--days", "3"]).contains("rotate the root first"));
    assert!(refused(place, &["issue", "--dir", "ca", "--id", id, "--seconds", "0"]).contains("a life of 0 seconds"));
    let usage = run(place, &["issue", "--dir", "ca", "--id", "spiffe://bpi.devnet/king/k"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("is none of validator, agent, relay"));
}

#[test]
fn a_directory_is_signed_for_the_mesh() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    done(place, &["init", "--dir", "ca", "--domain", "bpi.devnet"]);
    let key = std::fs::read_to_string(place.join("ca/directory.pub")).unwrap();
    let key = PublicKey::from_spki_pem(&key).unwrap();
    let member = Member {
        address: Some("127.0.0.1:7443".to_owned()),
        asn: 64_500,
        key: hex::encode(key.as_bytes()),
        operator: "acme".to_owned(),
        region: "eu-1".to_owned(),
    };
    let relay: bpi_identity::SpiffeId = "spiffe://bpi.devnet/relay/r1".parse().unwrap();
    let document = Document {
        domain: "bpi.devnet".parse().unwrap(),
        members: BTreeMap::from([(relay.clone(), member)]),
        valid_until_s: 4_000_000_000,
        version: 1,
    };
    std::fs::write(place.join("members.json"), serde_json::to_string_pretty(&document).unwrap()).unwrap();
    let made = done(place, &["directory", "--dir", "ca", "--to", "directory.json", "members.json"]);
    assert_eq!((&made["version"], &made["members"]), (&1.into(), &1.into()));
    let domain = document.domain.clone();
    let read = Directory::open_file(&place.join("directory.json"), &[key], &domain, 1_800_000_000).unwrap();
    assert_eq!(read.lookup(&relay, 1_800_000_000).unwrap().operator, "acme");
    std::fs::write(place.join("members.json"), "{}").unwrap();
    let text = refused(place, &["directory", "--dir", "ca", "--to", "directory.json", "members.json"]);
    assert!(text.contains("is no directory document"), "{text}");
}

#[test]
fn a_bundle_of_valid_roots_does_not_overflow() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("ca"));
    let now_s = 1_800_000_000;
    folder.init(&"bpi.devnet".parse().unwrap(), now_s, 1000).unwrap();
    for _ in 0..15 {
        folder.rotate(now_s, 1000).unwrap();
    }
    assert_eq!(folder.rotate(now_s, 1000), Err(DevnetError::Full));
    // The ended ones make room.
    folder.rotate(now_s + 1001, 1000).unwrap();
    assert_eq!(folder.bundle().unwrap().roots().len(), 1);
    let order = Order::of_life(now_s + 1001, 100);
    assert!(folder.issue(&"spiffe://bpi.devnet/agent/a".parse().unwrap(), &order, now_s + 1001, None).is_ok());
}
