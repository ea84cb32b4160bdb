//! SVIDs that change under load and under a reader: nobody is dropped, and nobody sees half of a change.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bpi_identity::devnet::{Ca, Folder, Order};
use bpi_identity::source::{Files, Source, SourceError};
use bpi_identity::tls::{ClientAuth, shown_by};
use bpi_identity::{Bundle, Identity, Role, Svid, SvidError};
use bytes::Bytes;
use quinn::{Connection, Endpoint};
use tokio::task::JoinSet;
use tokio::time::timeout;

use harness::{Clock, DAY_S, Log, NOW_S, bye, ca, dial, domain, id, identity, serve, svid};

const PATIENCE: Duration = Duration::from_secs(20);
const ROTATIONS: u64 = 50;

/// How often SVIDs change under load: more when `BPI_ROTATIONS` says so, for a campaign.
fn rotations_under_load() -> u64 {
    std::env::var("BPI_ROTATIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(ROTATIONS)
}

/// Answers every stream with what came on it, and every datagram with itself.
async fn echo(endpoint: Endpoint, identity: Identity) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let identity = identity.clone();
        connections.spawn(async move {
            let connection = incoming.await.unwrap();
            identity.peer_of(&shown_by(&connection)).unwrap();
            loop {
                tokio::select! {
                    Ok(datagram) = connection.read_datagram() => connection.send_datagram(datagram).unwrap(),
                    Ok((mut send, mut receive)) = connection.accept_bi() => {
                        let bytes = receive.read_to_end(1 << 16).await.unwrap();
                        send.write_all(&bytes).await.unwrap();
                        send.finish().unwrap();
                    }
                    _ = connection.closed() => return,
                }
            }
        });
    }
}

async fn ask(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[7; 4096]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(1 << 16).await.unwrap(), [7; 4096]);
}

/// Streams and datagrams until it is told to stop. Returns how many streams and how many datagrams came back.
async fn load(connection: Connection, stop: Arc<AtomicBool>, streams: Arc<AtomicU64>) -> u64 {
    let datagrams = tokio::spawn({
        let connection = connection.clone();
        async move {
            let mut back = 0;
            while connection.read_datagram().await.is_ok() {
                back += 1;
            }
            back
        }
    });
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..4 {
            connection.send_datagram(Bytes::from_static(&[1; 1000])).unwrap();
        }
        ask(&connection).await;
        streams.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(connection.close_reason(), None);
    connection.close(0u32.into(), b"");
    datagrams.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rotations_under_load_drop_nobody_and_new_connections_see_the_new_svid() {
    let mut authority = ca();
    let (relay, agent) = (identity(&authority, "relay/r1"), identity(&authority, "agent/a1"));
    let server = serve(&relay, &[Role::Agent], ClientAuth::Required);
    let address = server.local_addr().unwrap();
    let echo = tokio::spawn(echo(server.clone(), relay.clone()));
    let client = dial(&agent, &[Role::Relay]);
    let connect = async || client.connect(address, "relay.invalid").unwrap().await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = JoinSet::new();
    let mut counters = Vec::new();
    for _ in 0..6 {
        let streams = Arc::new(AtomicU64::new(0));
        loads.spawn(load(connect().await, Arc::clone(&stop), Arc::clone(&streams)));
        counters.push(streams);
    }

    let rotations = rotations_under_load();
    let mut seen = BTreeSet::new();
    for number in 1..=rotations {
        let before: Vec<_> = counters.iter().map(|streams| streams.load(Ordering::Relaxed)).collect();
        let bundle = if number % 10 == 0 {
            // The authority changes too: both roots, then SVIDs of the new one.
            let next = ca();
            let both = Bundle::from_der(domain(), vec![next.root().clone(), authority.root().clone()]).unwrap();
            for me in [&relay, &agent] {
                me.replace(me.current().svid().clone(), both.clone()).unwrap();
            }
            authority = next;
            both
        } else {
            relay.current().bundle().clone()
        };
        assert!(relay.replace(svid(&authority, "relay/r1"), bundle.clone()).unwrap());
        assert!(agent.replace(svid(&authority, "agent/a1"), bundle).unwrap());

        let new = connect().await;
        let shown = shown_by(&new);
        assert_eq!(shown, relay.current().svid().chain());
        assert!(seen.insert(shown[0].to_vec()), "rotation {number} is seen by new connections");
        ask(&new).await;
        new.close(0u32.into(), b"");
        // Every old connection has done something since.
        for (streams, before) in counters.iter().zip(before) {
            let moved = async {
                while streams.load(Ordering::Relaxed) == before {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, moved).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut datagrams = 0;
    while let Some(back) = loads.join_next().await {
        let back = back.unwrap();
        assert!(back > 0);
        datagrams += back;
    }
    let streams: u64 = counters.iter().map(|streams| streams.load(Ordering::Relaxed)).sum();
    println!("{rotations} rotations, 6 connections kept, {streams} streams and {datagrams} datagrams came back");
    bye(&client);
    bye(&server);
    timeout(PATIENCE, echo).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_left_the_bundle_stays_connected_and_does_not_come_back() {
    let (old, new) = (ca(), ca());
    let (relay, agent) = (identity(&old, "relay/r1"), identity(&old, "agent/a1"));
    let server = serve(&relay, &[Role::Agent], ClientAuth::Required);
    let address = server.local_addr().unwrap();
    let (let_in, mut entered) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn({
        let server = server.clone();
        async move {
            while let Some(incoming) = server.accept().await {
                let_in.send(incoming.await).unwrap();
            }
        }
    });
    let client = dial(&agent, &[Role::Relay]);
    let first = client.connect(address, "relay.invalid").unwrap().await.unwrap();
    // A client is done before its server has judged it (RFC 8446, section 4.4.4).
    let kept = entered.recv().await.unwrap().unwrap();
    assert!(relay.replace(svid(&new, "relay/r1"), new.bundle().unwrap()).unwrap());
    let refused = client.connect(address, "relay.invalid").unwrap().await;
    assert!(refused.is_err());
    assert_eq!((first.close_reason(), kept.close_reason()), (None, None));
    assert!(matches!(relay.peer_of(agent.current().svid().chain()), Err(SvidError::UnknownRoot { .. })));
    bye(&client);
    bye(&server);
}

fn files(folder: &Folder, me: &bpi_identity::SpiffeId) -> Files {
    Files { svid: folder.svid_path(me), key: None, bundle: folder.bundle_path(), poll: Duration::from_secs(1) }
}

#[test]
fn a_reader_never_sees_half_of_a_rotation() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("ca"));
    let me = id("relay/r1");
    folder.init(&domain(), NOW_S, 100 * DAY_S).unwrap();
    let issue = |folder: &Folder| folder.issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S), NOW_S, None).unwrap();
    issue(&folder);
    let done = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (folder, done) = (folder.clone(), Arc::clone(&done));
        move || {
            for number in 0..ROTATIONS {
                if number % 10 == 9 {
                    folder.rotate(NOW_S, 100 * DAY_S).unwrap();
                }
                issue(&folder);
            }
            done.store(true, Ordering::SeqCst);
        }
    });
    let (mut reads, mut seen) = (0u64, BTreeSet::new());
    while !done.load(Ordering::SeqCst) {
        // SVID first, then bundle: the bundle is always the wider of the two.
        let svid = Svid::from_pem_files(&folder.svid_path(&me), None).unwrap();
        let bundle = Bundle::from_pem_file(domain(), &folder.bundle_path()).unwrap();
        seen.insert(svid.chain()[0].to_vec());
        Identity::with_time(svid, bundle, Clock::at(NOW_S).shared()).unwrap();
        reads += 1;
    }
    writer.join().unwrap();
    println!("{reads} reads saw {} of {ROTATIONS} rotations, all whole", seen.len());
    assert!(reads > 50 && seen.len() > 5);
    let left: Vec<_> =
        std::fs::read_dir(place.path().join("ca/relay")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["r1.pem"]);
}

/// Lets the source look once more. Time is stepped, and the runtime's blocking reads are waited for.
async fn look_again(identity: &Identity, until: impl Fn(&Identity) -> bool) {
    for _ in 0..2_000 {
        if until(identity) {
            return;
        }
        tokio::time::advance(Duration::from_millis(500)).await;
        tokio::task::yield_now().await;
        // The blocking thread needs real time.
        thread::sleep(Duration::from_micros(200));
    }
    panic!("the source does not follow");
}

#[tokio::test(start_paused = true)]
async fn a_source_follows_its_files_and_keeps_the_old_svid_when_the_new_one_is_bad() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("ca"));
    let me = id("relay/r1");
    let clock = Clock::at(NOW_S);
    folder.init(&domain(), NOW_S, 100 * DAY_S).unwrap();
    let issue = || folder.issue(&me, &Order::of_life(NOW_S, DAY_S), NOW_S, None).unwrap();
    issue();
    let files = files(&folder, &me);
    let path = files.svid.clone();
    let mut tasks = JoinSet::new();
    let identity = Source::Files(files).start_with_time(clock.shared(), &mut tasks).await.unwrap();
    let chain = |identity: &Identity| identity.current().svid().chain().to_vec();
    let held = |path: &Path| Svid::from_pem_files(path, None).map(|svid| svid.chain().to_vec());

    for number in 0..ROTATIONS {
        if number % 10 == 9 {
            folder.rotate(NOW_S, 100 * DAY_S).unwrap();
        }
        issue();
        let wanted = held(&path).unwrap();
        look_again(&identity, |identity| chain(identity) == wanted).await;
    }
    assert_eq!(identity.current().bundle().roots().len(), 6);

    // Somebody else's, then garbage, then none: the one held stays, and the log says why.
    let before = chain(&identity);
    let foreign = Ca::generate(&domain(), NOW_S, DAY_S).unwrap();
    let foreign = foreign.issue(&me, &Order::of_life(NOW_S, 3600)).unwrap();
    std::fs::write(&path, foreign.pem().as_bytes()).unwrap();
    look_again(&identity, |_| log.text().contains("no root of the trust bundle")).await;
    let looks = std::cell::Cell::new(0);
    look_again(&identity, |_| looks.replace(looks.get() + 1) == 20).await;
    std::fs::write(&path, "-----BEGIN NOTHING").unwrap();
    look_again(&identity, |_| log.text().contains("is not PEM") || log.text().contains("no certificate")).await;
    std::fs::remove_file(&path).unwrap();
    look_again(&identity, |_| log.text().contains("cannot be read")).await;
    assert_eq!(chain(&identity), before);

    // It grows old.
    clock.set(NOW_S + DAY_S * 4 / 5);
    look_again(&identity, |_| log.text().contains("three quarters")).await;
    clock.set(NOW_S + DAY_S + 1);
    look_again(&identity, |_| log.text().contains("the own SVID has expired")).await;
    assert_eq!(chain(&identity), before);

    // One of tomorrow is taken tomorrow, though its file does not change again.
    let early = Order { not_before_s: NOW_S + 2 * DAY_S, not_after_s: NOW_S + 3 * DAY_S, dns: Vec::new() };
    folder.issue(&me, &early, NOW_S + 2 * DAY_S, None).unwrap();
    look_again(&identity, |_| log.text().contains("not valid before")).await;
    assert_eq!(chain(&identity), before);
    clock.set(NOW_S + 2 * DAY_S);
    look_again(&identity, |identity| chain(identity) != before).await;
    assert_eq!(log.text().matches("no root of the trust bundle").count(), 1, "a reason is said once");
}

#[tokio::test(start_paused = true)]
async fn a_chain_and_a_key_of_two_files_are_taken_when_both_are_there() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("ca"));
    folder.init(&domain(), NOW_S, 100 * DAY_S).unwrap();
    let (chain, key) = (place.path().join("chain.pem"), place.path().join("key.pem"));
    let issue = || {
        let made = folder.ca().unwrap().issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S)).unwrap();
        let pem = made.pem();
        let at = pem.find("-----BEGIN CERT").unwrap();
        (pem[at..].to_owned(), pem[..at].to_owned(), made.der().clone())
    };
    let put = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let (first, first_key, _) = issue();
    put(&chain, &first);
    put(&key, &first_key);
    let poll = Duration::from_secs(1);
    let files = Files { svid: chain.clone(), key: Some(key.clone()), bundle: folder.bundle_path(), poll };
    let mut tasks = JoinSet::new();
    let identity = Source::Files(files).start_with_time(Clock::at(NOW_S).shared(), &mut tasks).await.unwrap();
    let (second, second_key, der) = issue();
    put(&chain, &second);
    look_again(&identity, |_| log.text().contains("is not the one of the certificate")).await;
    put(&key, &second_key);
    look_again(&identity, |identity| identity.current().svid().chain() == [der.clone()]).await;
}

#[tokio::test]
async fn a_start_without_a_usable_svid_fails_at_once() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::at(place.path().join("ca"));
    folder.init(&domain(), NOW_S, 100 * DAY_S).unwrap();
    let mut tasks = JoinSet::new();
    let source = Source::Files(files(&folder, &id("relay/r1")));
    let refused = source.start_with_time(Clock::at(NOW_S).shared(), &mut tasks).await.unwrap_err();
    assert!(matches!(refused, SourceError::Svid(SvidError::Pem(_))), "{refused}");
    assert!(tasks.is_empty());
}
