//! Authorities, clocks, endpoints and logs for the tests of this crate. Each test file uses its part.

#![allow(dead_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bpi_identity::devnet::{Ca, Order};
use bpi_identity::tls::{ClientAuth, quic_client, quic_server};
use bpi_identity::{Identity, Role, SpiffeId, Svid, TrustDomain};
use quinn::{ClientConfig, Endpoint, ServerConfig, VarInt};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;

/// A moment in 2027.
pub const NOW_S: u64 = 1_800_000_000;
pub const DAY_S: u64 = 86_400;
pub const ALPN: &[&[u8]] = &[b"bpci/1"];

/// A clock that stands until it is set.
#[derive(Debug, Clone)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    pub fn at(now_s: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_s)))
    }

    pub fn set(&self, now_s: u64) {
        self.0.store(now_s, Ordering::SeqCst);
    }

    pub fn shared(&self) -> Arc<dyn TimeProvider> {
        Arc::new(self.clone())
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::SeqCst))))
    }
}

pub fn domain() -> TrustDomain {
    "bpi.test".parse().unwrap()
}

pub fn id(text: &str) -> SpiffeId {
    format!("spiffe://bpi.test/{text}").parse().unwrap()
}

pub fn ca() -> Ca {
    Ca::generate(&domain(), NOW_S, 100 * DAY_S).unwrap()
}

pub fn svid(ca: &Ca, text: &str) -> Svid {
    ca.issue(&id(text), &Order::of_life(NOW_S, DAY_S)).unwrap().svid().unwrap()
}

pub fn identity(ca: &Ca, text: &str) -> Identity {
    Identity::with_time(svid(ca, text), ca.bundle().unwrap(), Clock::at(NOW_S).shared()).unwrap()
}

pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub fn serve(identity: &Identity, roles: &[Role], auth: ClientAuth) -> Endpoint {
    let crypto = quic_server(identity, roles, ALPN, auth).unwrap();
    Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), loopback()).unwrap()
}

pub fn dial(identity: &Identity, roles: &[Role]) -> Endpoint {
    let crypto = quic_client(identity, roles, ALPN).unwrap();
    let mut endpoint = Endpoint::client(loopback()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    endpoint
}

pub fn bye(endpoint: &Endpoint) {
    endpoint.close(VarInt::from_u32(0), b"");
}

/// What a thread has logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Everything from info on, one line an event.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        tracing_subscriber::fmt()
            .with_writer(self.clone())
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .finish()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
