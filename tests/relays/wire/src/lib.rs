//! A network for tests, and programs that talk over it.
//!
//! ```text
//! namespace ── TUN ─┐
//! namespace ── TUN ─┼─ bpi-wire: to whom by address, after how long by region, or lost by seeded chance
//! namespace ── TUN ─┘
//! ```
//!
//! [`wire::Wire`] decides and holds packets: pure, time is an argument. The program `bpi-wire` reads and writes. `mesh-probe` sends numbered
//! messages over relays and says when each came; `silent-relay` is a relay that takes frames and drops them. Absent on purpose: bandwidth (the
//! kernel's `tbf` does that), IPv6, and anything a product needs.

pub mod chance;
pub mod probe;
pub mod wire;
