//! How QUIC is set, with the arithmetic.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::BbrConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Streams of each kind that a neighbour may open: quinn makes room for all of them when a connection begins (bpci.md: 61 KiB a pair at 16).
pub const STREAMS_MAX: u32 = 8;
/// Bytes of one stream, and of one connection, that may be under way: 1 MiB is a bandwidth of 100 Mbit/s at 80 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const WINDOW_BYTES: u32 = 2 << 20;
/// Datagrams that wait to be read, or to be sent, in bytes.
const DATAGRAM_BYTES: usize = 1 << 20;
/// A connection from which nothing has come for so long is over.
pub const IDLE_MS: u32 = 10_000;
/// A client says that it is there when nothing else is said.
pub const KEEP_ALIVE: Duration = Duration::from_millis(300);

/// For both ends; only a client keeps the connection alive.
pub fn transport(keep_alive: bool) -> Arc<TransportConfig> {
    Arc::new(settings(keep_alive))
}

/// The same, for who changes it.
pub(crate) fn settings(keep_alive: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(keep_alive.then_some(KEEP_ALIVE))
        // CUBIC takes each lost or overtaken packet for congestion: with 5 % of them a hop of 20 ms carried less than 100 kB/s, and frames waited
        // for seconds behind those that were sent again for them (tests/relays/netns.py, `loss`).
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    transport
}
