//! A proxy for tests: UDP and TCP on one port of loopback, a self-signed certificate, and every target allowed.
//!
//! Writes its certificate to the given file, then the line `port N` to standard output, and serves until it is ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bpi_masque::{Event, Host, Page, Refusal, Target, outer_transport, serve_h1, serve_h3};
use clap::Parser;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

type Failed = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Arguments {
    /// The name in the certificate.
    #[arg(long, default_value = "localhost")]
    name: String,
    /// Where to write the certificate (PEM).
    #[arg(long)]
    certificate: PathBuf,
}

#[derive(Default)]
struct Open {
    opened: AtomicUsize,
    dropped: AtomicUsize,
}

#[async_trait]
impl Host for Open {
    async fn authorize(&self, target: &Target) -> Result<SocketAddr, Refusal> {
        match (target.ip(), target.host()) {
            (Some(ip), _) => Ok((ip, target.port()).into()),
            (None, "localhost") => Ok((Ipv4Addr::LOCALHOST, target.port()).into()),
            (None, "forbidden.example") => Err(Refusal::Forbidden),
            (None, _) => Err(Refusal::Unresolved),
        }
    }

    fn page(&self, path: &str) -> Option<Page> {
        let (opened, dropped) = (self.opened.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed));
        match path {
            "/status" => Some(Page { content_type: "text/plain", body: "well\n".into() }),
            "/metrics" => {
                let body = format!("tunnels_opened_total {opened}\ndatagrams_dropped_total {dropped}\n");
                Some(Page { content_type: "text/plain; version=0.0.4", body: body.into() })
            }
            _ => None,
        }
    }

    fn count(&self, event: Event) {
        match event {
            Event::Opened => self.opened.fetch_add(1, Ordering::Relaxed),
            Event::Dropped(_) => self.dropped.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

fn tls(
    chain: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    alpn: &str,
) -> Result<rustls::ServerConfig, Failed> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![chain.clone()], key.clone_key())?;
    config.alpn_protocols = vec![alpn.into()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let made = rcgen::generate_simple_self_signed([arguments.name])?;
    std::fs::write(&arguments.certificate, made.cert.pem())?;
    let (chain, key) = (made.cert.der().clone(), PrivateKeyDer::try_from(made.signing_key.serialize_der())?);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut transport = quinn::TransportConfig::default();
    outer_transport(&mut transport);
    let crypto = QuicServerConfig::try_from(tls(&chain, &key, "h3")?)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::server(server, address)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(&chain, &key, "http/1.1")?));
    println!("port {}", address.port());

    let host = Arc::new(Open::default());
    loop {
        let host = Arc::<Open>::clone(&host);
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return Ok(()) };
                tokio::spawn(async move {
                    match incoming.await {
                        Ok(connection) => match serve_h3(connection, host).await {
                            Ok(()) => eprintln!("a connection of HTTP/3 has ended"),
                            Err(error) => eprintln!("a connection of HTTP/3 has ended: {error}"),
                        },
                        Err(error) => eprintln!("no connection: {error}"),
                    }
                });
            }
            accepted = listener.accept() => {
                let (stream, acceptor) = (accepted?.0, acceptor.clone());
                tokio::spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(stream) => match serve_h1(stream, host).await {
                            Ok(()) => eprintln!("a connection of HTTP/1.1 has ended"),
                            Err(error) => eprintln!("a connection of HTTP/1.1 has ended: {error}"),
                        },
                        Err(error) => eprintln!("no connection: {error}"),
                    }
                });
            }
        }
    }
}
