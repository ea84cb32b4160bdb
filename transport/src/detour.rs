//! The detour by a proxy: QUIC to a relay that goes, whole, through another relay as UDP proxied in HTTP (RFC 9298).
//!
//! For a client whose network lets it reach nothing else, or that does not want the relay to see its address. The proxy sees packets of QUIC and
//! where they go; the relay sees the proxy's address. Over UDP the outside is HTTP/3; where that is blocked it is HTTP/1.1 over TLS and TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use bpi_identity::tls::shown_by;
use bpi_identity::{Identity, Role, SpiffeId, client_config, quic_client};
use bpi_masque::{Target, Tunnel, inner_transport, outer_transport};
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::link::Carrier;
use crate::settings;
use crate::way::{DialError, connected_endpoint, prepare, resolve};

/// The proxy of a detour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Who has to be there.
    pub relay: SpiffeId,
    /// Host and port of UDP.
    pub udp: String,
    /// Host and port of TCP.
    pub tcp: String,
}

/// An endpoint whose socket is a tunnel to `target`, and the address that stands for it.
///
/// # Errors
/// [`DialError`].
pub(crate) async fn endpoint(
    identity: &Identity,
    via: &Via,
    carrier: Carrier,
    target: &str,
) -> Result<(Endpoint, SocketAddr), DialError> {
    let failed = |reason: &dyn std::fmt::Display| DialError::Connect {
        carrier,
        address: format!("{target} by {}", via.relay),
        reason: reason.to_string(),
    };
    let (host, port) = target.rsplit_once(':').ok_or_else(|| failed(&"no port"))?;
    let port: u16 = port.parse().map_err(|error| failed(&error))?;
    let target = Target::new(host.trim_matches(['[', ']']), port).map_err(|error| failed(&error))?;
    let tunnel = match carrier {
        Carrier::Quic => over_quic(identity, via, &target, &failed).await?,
        Carrier::Tls => over_tls(identity, via, &target, &failed).await?,
    };
    let peer = tunnel.peer();
    let endpoint =
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, Arc::new(tunnel), Arc::new(TokioRuntime));
    Ok((endpoint.map_err(|error| failed(&error))?, peer))
}

/// How QUIC inside a tunnel is set.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut transport = settings::settings(true);
    inner_transport(&mut transport);
    Arc::new(transport)
}

type Failed<'a> = &'a (dyn Fn(&dyn std::fmt::Display) -> DialError + Sync);

async fn over_quic(identity: &Identity, via: &Via, target: &Target, failed: Failed<'_>) -> Result<Tunnel, DialError> {
    let address = resolve(&via.udp).await?;
    let tls = quic_client(identity, &[Role::Relay], &[b"h3"]).map_err(|error| failed(&error))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    let mut transport = settings::settings(true);
    outer_transport(&mut transport);
    transport.keep_alive_interval(Some(settings::KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    let endpoint = connected_endpoint(address).map_err(|error| failed(&error))?;
    let connecting = endpoint.connect_with(config, address, "relay.invalid").map_err(|error| failed(&error))?;
    let connection = connecting.await.map_err(|error| failed(&error))?;
    let leaf = identity.peer_of(&shown_by(&connection)).map_err(|error| failed(&error))?;
    check(&leaf.id, via)?;
    Tunnel::open_h3(connection, &via.udp, target).await.map_err(|error| failed(&error))
}

async fn over_tls(identity: &Identity, via: &Via, target: &Target, failed: Failed<'_>) -> Result<Tunnel, DialError> {
    let address = resolve(&via.tcp).await?;
    let tls = client_config(identity, &[Role::Relay], &[b"http/1.1"]).map_err(|error| failed(&error))?;
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    prepare(&stream);
    let name = ServerName::try_from("relay.invalid").map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| failed(&error))?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = identity.peer_of(shown).map_err(|error| failed(&error))?;
    check(&leaf.id, via)?;
    Tunnel::open_h1(stream, &via.tcp, target).await.map_err(|error| failed(&error))
}

fn check(found: &SpiffeId, via: &Via) -> Result<(), DialError> {
    match *found == via.relay {
        true => Ok(()),
        false => Err(DialError::Other { found: found.to_string(), wanted: via.relay.to_string() }),
    }
}
