//! Who a peer is: SPIFFE X.509-SVIDs.
//!
//! `source → Identity → tls → Leaf`: an SVID and a trust bundle come from files or from the Workload API, an [`Identity`] holds the
//! newest pair, every handshake reads it, and what a peer proves is a [`Leaf`]. What a peer does not prove, its operator and its network,
//! comes from a signed [`directory`]. Time is an argument or a clock that the caller gives. Absent on purpose: names of the DNS as
//! identities, revocation lists, federation of trust domains.

pub mod bundle;
#[cfg(feature = "devnet")]
pub mod devnet;
pub mod directory;
pub mod identity;
pub mod pem;
pub mod source;
pub mod spiffe;
pub mod svid;
pub mod tls;

pub use bundle::Bundle;
pub use identity::Identity;
pub use source::Source;
pub use spiffe::{Role, SpiffeId, TrustDomain};
pub use svid::{Leaf, Svid, SvidError, judge_leaf};
pub use tls::{ClientAuth, client_config, quic_client, quic_server, server_config};
