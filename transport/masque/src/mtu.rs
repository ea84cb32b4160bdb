//! Sizes of packets, so that QUIC in a tunnel fits the QUIC around it.
//!
//! An inner packet of [`INNER_MTU`] bytes becomes a DATAGRAM frame of an outer packet, which adds [`OVERHEAD`]. The outer connection
//! therefore starts at [`OUTER_MTU`] and never goes below it. On a path that does not carry such packets, its handshake succeeds and the
//! packets after it are lost: such a path is one for the fallback over TCP.

use std::time::Duration;

use quinn::{TransportConfig, VarInt};

/// Bytes of an inner packet: the least that every path of QUIC carries (RFC 9000, section 14). Never more, for the inner connection sees no path.
pub const INNER_MTU: u16 = 1200;
/// Bytes around an inner packet, each at its most: the outer short header with a connection id of 20 and a packet number of 4 (RFC 9000,
/// section 17.3.1), the AEAD tag, type and length of the DATAGRAM frame as quinn reckons them (RFC 9221, section 4), the quarter stream id
/// and the context.
pub const OVERHEAD: u16 = (1 + 20 + 4) + 16 + (1 + 8) + 8 + 1;
/// Bytes of an outer packet, at least; with UDP and IPv6 1398.
pub const OUTER_MTU: u16 = 1350;

const _: () = assert!(OUTER_MTU >= INNER_MTU + OVERHEAD, "an inner packet fits an outer one");

/// Datagrams that wait in QUIC, bytes in either direction of a connection.
const DATAGRAM_BYTES_MAX: usize = 512 << 10;
/// Requests at a time. quinn allocates its table of streams ahead.
const REQUESTS_MAX: u32 = 16;
/// Streams one way: control, two of QPACK, and some that mean nothing.
const ONE_WAY_MAX: u32 = 8;
/// What a stream may have on the way; tunnels with capsules need it.
const STREAM_BYTES_MAX: u32 = 128 << 10;
/// What all streams of a connection may have on the way.
const CONNECTION_BYTES_MAX: u32 = 1 << 20;
/// A tunnel may rest for two minutes, a QUIC connection and the mappings on its way only for half of one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Sets what the connection to a proxy needs, at both ends.
pub fn outer_transport(transport: &mut TransportConfig) {
    transport
        .initial_mtu(OUTER_MTU)
        .min_mtu(OUTER_MTU)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .max_concurrent_bidi_streams(VarInt::from_u32(REQUESTS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES_MAX))
        .receive_window(VarInt::from_u32(CONNECTION_BYTES_MAX))
        .send_window(CONNECTION_BYTES_MAX.into())
        .keep_alive_interval(Some(KEEP_ALIVE));
}

/// Sets what a connection inside a tunnel needs, at both ends.
pub fn inner_transport(transport: &mut TransportConfig) {
    transport.initial_mtu(INNER_MTU).min_mtu(INNER_MTU).mtu_discovery_config(None).enable_segmentation_offload(false);
}
