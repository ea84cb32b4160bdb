//! Clients and relays that run as programs, over loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod site;

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bpi_identity::Role;
use bpi_protocol::frame::key::PrekeyPair;
use bpi_transport::link::Carrier;
use bpi_transport::mesh::Event;
use bpi_transport::way::{self, Address, Way};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use site::{Client, NETWORK, PATIENCE, Site, eventually, key, unix_s};

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn messages_come_once_over_two_relays_also_when_one_is_killed() {
    let site = Site::new();
    let (first, second) = (site.relay("r1").await, site.relay("r2").await);
    let addresses = vec![first.address(), second.address()];
    let svid = site.issue(Role::Agent, "a", 3_600);
    let sender = Client::start(&site, &svid, 1, addresses.clone()).await;
    let mut taker = Client::start(&site, &site.issue(Role::Validator, "v", 3_600), 2, addresses).await;
    (0..200).for_each(|number| sender.send(&taker, number));
    assert_eq!(sorted(taker.take(200).await), (0..200).collect::<Vec<_>>());
    drop(first);
    for number in 200..400 {
        sender.send(&taker, number);
        if number % 20 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(sorted(taker.take(200).await), (200..400).collect::<Vec<_>>());
    drop(second);
}

#[tokio::test]
async fn a_client_reaches_a_relay_through_another_over_udp_and_over_tcp() {
    let site = Site::new();
    let (proxy, far) = (site.relay("proxy").await, site.relay("far").await);
    let svid = site.issue(Role::Agent, "hidden", 3_600);
    let by_udp = Address { via: Some(proxy.via()), ..far.address() };
    let mut by_tcp = by_udp.clone();
    // Nothing answers there, as where UDP is blocked.
    by_tcp.via.as_mut().unwrap().udp = "127.0.0.1:9".to_owned();
    let mut taker = Client::start(&site, &site.issue(Role::Validator, "v", 3_600), 2, vec![far.address()]).await;
    for (seed, address, carrier) in [(1, by_udp, Carrier::Quic), (3, by_tcp, Carrier::Tls)] {
        let sender = Client::start(&site, &svid, seed, vec![address]).await;
        (0..50).for_each(|number| sender.send(&taker, number));
        assert_eq!(sorted(taker.take(50).await), (0..50).collect::<Vec<_>>());
        assert_eq!(sender.mesh.ways()[0].link().unwrap().carrier, carrier);
    }
}

#[tokio::test]
async fn an_svid_is_rotated_under_traffic_and_nothing_is_lost() {
    let site = Site::new();
    let relay = site.relay("r1").await;
    let svid = site.issue(Role::Agent, "short", 8);
    let sender = Client::start(&site, &svid, 1, vec![relay.address()]).await;
    let mut taker = Client::start(&site, &site.issue(Role::Validator, "v", 3_600), 2, vec![relay.address()]).await;
    sender.send(&taker, 0);
    taker.take(1).await;
    let link = || sender.mesh.ways()[0].link().map(|link| link.number);
    let (first, began) = (link(), Instant::now());
    let (mut number, mut issued, mut links) = (1, Instant::now(), vec![first]);
    while began.elapsed() < Duration::from_secs(20) {
        if issued.elapsed() > Duration::from_secs(4) {
            site.issue(Role::Agent, "short", 8);
            issued = Instant::now();
        }
        sender.send(&taker, number);
        number += 1;
        assert!(link().is_some(), "there is always a connection");
        if !links.contains(&link()) {
            links.push(link());
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sorted(taker.take(number as usize - 1).await), (1..number).collect::<Vec<_>>());
    assert!(links.len() >= 3, "the connection was renewed in time: {links:?}");
}

#[tokio::test]
async fn who_does_not_renew_is_cut_off_when_the_certificate_ends() {
    let site = Site::new();
    let relay = site.relay("r1").await;
    let svid = site.issue(Role::Agent, "late", 4);
    let client = Client::start(&site, &svid, 1, vec![relay.address()]).await;
    eventually("it connects", || client.mesh.relays_connected() == 1).await;
    eventually("it is cut off", || client.mesh.relays_connected() == 0).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(client.mesh.relays_connected(), 0, "and not let in again");
    eventually("the reason is in the relay's log", || {
        relay.logged("a connection was refused") || relay.logged("expired")
    })
    .await;
}

#[tokio::test]
async fn headers_are_published_by_validators_alone_and_come_to_who_subscribes() {
    let site = Site::new();
    let relay = site.relay("r1").await;
    let validator = Client::start(&site, &site.issue(Role::Validator, "v", 3_600), 1, vec![relay.address()]).await;
    let mut agent = Client::start(&site, &site.issue(Role::Agent, "a", 3_600), 2, vec![relay.address()]).await;
    eventually("both connect", || validator.mesh.relays_connected() + agent.mesh.relays_connected() == 2).await;
    agent.mesh.publish(99, b"none of a validator's");
    for height in 1..=5 {
        validator.mesh.publish(height, format!("header {height}").as_bytes());
        sleep(Duration::from_millis(50)).await;
    }
    let mut heights = Vec::new();
    while heights.len() < 3 {
        match timeout(PATIENCE, agent.events.recv()).await.expect("a headline comes in time").unwrap() {
            Event::Headline { height, body } => {
                assert_eq!(body, format!("header {height}").into_bytes());
                heights.push(height);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(heights.is_sorted() && !heights.contains(&99));
}

#[tokio::test]
async fn who_names_an_identity_that_it_does_not_hold_is_not_welcome() {
    let site = Site::new();
    let relay = site.relay("r1").await;
    let mut tasks = JoinSet::new();
    let identity = site.identity(&site.issue(Role::Agent, "thief", 3_600), &mut tasks).await;
    let (own, victim) = (key(1), key(2));
    let prekey =
        |signer: &_| PrekeyPair::generate(signer, NETWORK, 1, unix_s(), &mut UnwrapErr(SysRng)).public.to_bytes();
    let client = |signer: Arc<site::Key>, prekey: Vec<u8>| way::Client {
        identity: identity.clone(),
        signer,
        network: NETWORK,
        prekey: Arc::new(RwLock::new(prekey)),
    };
    let dial = |client: way::Client| {
        let way = Way::new(relay.address());
        async move { timeout(PATIENCE, way.dial_quic(&client)).await.unwrap() }
    };
    assert!(dial(client(Arc::clone(&own), prekey(&own))).await.is_ok());
    let error = dial(client(Arc::clone(&own), prekey(&victim))).await.unwrap_err().to_string();
    assert!(!error.contains("prekey"), "the reason stays with the relay: {error}");
    eventually("the relay says why", || relay.logged("another identity's")).await;
    // Signed by another key than it names.
    struct Liar(Arc<site::Key>, Arc<site::Key>);
    impl bpi_protocol::frame::key::Signer for Liar {
        fn identity(&self) -> [u8; 32] {
            self.1.identity()
        }
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign(message)
        }
    }
    let liar = way::Client {
        identity: identity.clone(),
        signer: Arc::new(Liar(own, Arc::clone(&victim))),
        network: NETWORK,
        prekey: Arc::new(RwLock::new(prekey(&victim))),
    };
    assert!(dial(liar).await.is_err());
    eventually("the relay says why", || relay.logged("it has not signed for this session")).await;
}

#[tokio::test]
async fn a_relay_that_is_asked_to_stop_tells_its_clients_and_ends_in_time() {
    let site = Site::new();
    let (mut first, second) = (site.relay("r1").await, site.relay("r2").await);
    let addresses = vec![first.address(), second.address()];
    let sender = Client::start(&site, &site.issue(Role::Agent, "a", 3_600), 1, addresses.clone()).await;
    let mut taker = Client::start(&site, &site.issue(Role::Validator, "v", 3_600), 2, addresses).await;
    eventually("both connect to both", || sender.mesh.relays_connected() + taker.mesh.relays_connected() == 4).await;
    let pid = rustix::process::Pid::from_child(&first.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    (0..100).for_each(|number| sender.send(&taker, number));
    assert_eq!(sorted(taker.take(100).await), (0..100).collect::<Vec<_>>());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = first.process.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success());
    assert!(first.logged("asked to stop"));
}
