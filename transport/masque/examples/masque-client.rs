//! A client for tests: sends datagrams through a proxy to a target that sends them back, and compares.
//!
//! Ends with the line `N echoes, median M us`, or with what went wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpi_masque::{Target, Tunnel, outer_transport};
use clap::Parser;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;

type Failed = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Arguments {
    /// The proxy's address.
    #[arg(long)]
    proxy: SocketAddr,
    /// The proxy's name.
    #[arg(long, default_value = "localhost")]
    name: String,
    /// Whom to trust (PEM).
    #[arg(long)]
    certificate: PathBuf,
    /// The target's host.
    #[arg(long)]
    host: String,
    /// The target's port.
    #[arg(long)]
    port: u16,
    /// Over an upgrade of HTTP/1.1.
    #[arg(long)]
    http1: bool,
    /// Datagrams to send, one after another.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Bytes of each.
    #[arg(long, default_value_t = 1000)]
    bytes: usize,
}

fn tls(arguments: &Arguments, alpn: &str) -> Result<rustls::ClientConfig, Failed> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&arguments.certificate)?)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

async fn open(arguments: &Arguments, target: &Target) -> Result<Tunnel, Failed> {
    let authority = format!("{}:{}", arguments.name, arguments.proxy.port());
    if arguments.http1 {
        let stream = TcpStream::connect(arguments.proxy).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(arguments, "http/1.1")?));
        let stream = connector.connect(ServerName::try_from(arguments.name.clone())?, stream).await?;
        return Ok(Tunnel::open_h1(stream, &authority, target).await?);
    }
    let mut transport = quinn::TransportConfig::default();
    outer_transport(&mut transport);
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls(arguments, "h3")?)?));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connection = endpoint.connect_with(config, arguments.proxy, &arguments.name)?.await?;
    Ok(Tunnel::open_h3(connection, &authority, target).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let target = Target::new(&arguments.host, arguments.port)?;
    let tunnel = open(&arguments, &target).await?;
    let mut times = Vec::new();
    for number in 0..arguments.count {
        let mut payload = vec![number as u8; arguments.bytes.max(4)];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let sent = Instant::now();
        tunnel.send(&payload).await?;
        let back = timeout(Duration::from_secs(5), tunnel.receive()).await??;
        if back != payload {
            return Err(format!("datagram {number} came back as another").into());
        }
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("{} echoes, median {} us", times.len(), median.as_micros());
    Ok(())
}
