//! What the TOML of a client says of itself and of relays; the same fields in every program.
//!
//! ```toml
//! [identity]
//! svid_file = "svid.pem"            # certificates and key, or `workload_api` in place of both files
//! bundle_file = "bundle.pem"
//!
//! [[relay]]
//! id = "spiffe://bpi.devnet/relay/r1"
//! address = "relay1.example:443"    # UDP and TCP
//! asn = 64500
//! ```

use std::path::{Path, PathBuf};

use bpi_identity::source::{FIRST_WAIT, Files, POLL, SourceError, WorkloadApi};
use bpi_identity::{Identity, Role, Source, SpiffeId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::detour::Via;
use crate::mesh::Relay;
use crate::spread::Place;
use crate::way::Address;

/// Relays of a configuration, at most.
pub const RELAYS_MAX: usize = 64;

/// Where the SVID comes from: files, or a SPIFFE Workload API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// The X.509-SVID in PEM, its key too unless that has a file of its own. Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid_file: Option<PathBuf>,
    /// Its private key in PEM, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid_key_file: Option<PathBuf>,
    /// The authorities of the trust domain, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_file: Option<PathBuf>,
    /// The socket of a Workload API, in place of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_api: Option<PathBuf>,
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Its SPIFFE id.
    pub id: String,
    /// Host and port of UDP, and of TCP unless `tcp_address` says otherwise.
    pub address: String,
    /// Host and port of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_address: Option<String>,
    /// Id of another relay of this configuration that QUIC to this one goes through, for networks that let nothing else pass, or to hide
    /// this host's address from this relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Its autonomous system; frames go over relays of different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

/// Why there is no identity, or no relay.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither files nor a Workload API, or both.
    #[error("[identity] needs either `svid_file` and `bundle_file`, or `workload_api`")]
    Identity,
    /// A relay whose id is none.
    #[error("relay {id:?} is refused: {reason}")]
    Relay {
        /// What stands there.
        id: String,
        /// What it has to be.
        reason: String,
    },
    /// Too many relays.
    #[error("{count} relays are more than {RELAYS_MAX}")]
    Relays {
        /// How many.
        count: usize,
    },
    /// Its SVID cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl IdentityConfig {
    /// Relative paths count from a folder.
    pub fn resolve(&mut self, folder: &Path) {
        let files = [&mut self.svid_file, &mut self.svid_key_file, &mut self.bundle_file, &mut self.workload_api];
        files.into_iter().flatten().for_each(|file| *file = folder.join(&*file));
    }

    /// Where the SVID comes from.
    ///
    /// # Errors
    /// [`ConfigError::Identity`].
    pub fn source(&self) -> Result<Source, ConfigError> {
        match (&self.svid_file, &self.bundle_file, &self.workload_api) {
            (Some(svid), Some(bundle), None) => Ok(Source::Files(Files {
                svid: svid.clone(),
                key: self.svid_key_file.clone(),
                bundle: bundle.clone(),
                poll: POLL,
            })),
            (None, None, Some(socket)) if self.svid_key_file.is_none() => Ok(Source::WorkloadApi(WorkloadApi {
                socket: Some(format!("unix:{}", socket.display())),
                id: None,
                first_wait: FIRST_WAIT,
            })),
            _ => Err(ConfigError::Identity),
        }
    }

    /// The identity, which a task keeps fresh.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub async fn start(&self, tasks: &mut JoinSet<()>) -> Result<Identity, ConfigError> {
        Ok(self.source()?.start(tasks).await?)
    }
}

impl RelayConfig {
    /// The relay it names.
    ///
    /// # Errors
    /// [`ConfigError::Relay`].
    pub fn relay(&self) -> Result<Relay, ConfigError> {
        let refused = |reason: String| ConfigError::Relay { id: self.id.clone(), reason };
        let id: SpiffeId = self.id.parse().map_err(|error| refused(format!("{error}")))?;
        if id.role() != Role::Relay {
            return Err(refused("its role is not `relay`".to_owned()));
        }
        let tcp = self.tcp_address.as_ref().unwrap_or(&self.address);
        for address in [&self.address, tcp] {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(refused(format!("{address:?} is not a host and a port")));
            }
        }
        let place = Place { asn: self.asn, region: self.region.clone(), operator: self.operator.clone() };
        let address = Address { relay: id, udp: self.address.clone(), tcp: tcp.clone(), via: None };
        Ok(Relay { address, place })
    }
}

/// All relays of a configuration.
///
/// # Errors
/// [`ConfigError`].
pub fn relays(configs: &[RelayConfig]) -> Result<Vec<Relay>, ConfigError> {
    if configs.len() > RELAYS_MAX {
        return Err(ConfigError::Relays { count: configs.len() });
    }
    let mut relays = configs.iter().map(RelayConfig::relay).collect::<Result<Vec<_>, _>>()?;
    for (number, config) in configs.iter().enumerate() {
        let Some(via) = &config.via else { continue };
        let proxy = configs.iter().position(|other| other.id == *via && other.id != config.id && other.via.is_none());
        let Some(Relay { address: Address { relay, udp, tcp, .. }, .. }) = proxy.and_then(|at| relays.get(at)) else {
            let reason = format!("it goes by {via:?}, which is no other relay here that is reached without a detour");
            return Err(ConfigError::Relay { id: config.id.clone(), reason });
        };
        let via = Via { relay: relay.clone(), udp: udp.clone(), tcp: tcp.clone() };
        relays[number].address.via = Some(via);
    }
    Ok(relays)
}
