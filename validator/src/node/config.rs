//! The one configuration file of a node: TOML in which an unknown field is refused, and every field but `genesis` has a default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use bpi_program::api::ApiAddress;
pub use bpi_program::config::ConfigError;
use bpi_program::config::Fault;
use bpi_program::{config, log};
use bpi_transport::config::{IdentityConfig, RelayConfig};
use serde::{Deserialize, Serialize};

use super::agents::{Agent, Tenants};
use crate::contents::leaf::TenantId;
use crate::core::timing::Timing;

/// Environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "BPI_VALIDATOR_CONFIG";
/// The file that is read when nothing else was asked for.
pub const CONFIG_FILE: &str = "/etc/bpi/validator.toml";
/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Peers beyond the validators, at most.
const OBSERVERS_MAX: usize = 64;
/// Agents, at most: a task and 500 bytes for each, and what waits of all is bounded beside ([`super::network::bpci`]).
const AGENTS_MAX: usize = 256;
/// Tenants of an agent, at most.
const TENANTS_MAX: usize = 1024;
/// Probes in a second, at most.
const PROBES_PER_S_MAX: u32 = 100;
/// Relays that a receipt tells of (bpi_protocol::frame::receipt).
const RELAYS_PER_FRAME_MAX: usize = 8;
/// Bounds of a block's time and of a round's, in ms.
const BLOCK_MS: std::ops::RangeInclusive<u64> = 20..=60_000;
const ROUND_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
const DOUBLINGS_MAX: u32 = 16;
/// Bounds of what waits.
const LEAVES: std::ops::RangeInclusive<usize> = 1..=1_000_000;

/// How a node runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the chain starts from, the same file at every node.
    pub genesis: PathBuf,
    /// The key that votes, mode 0600; its watermark is beside it. A node without one observes.
    #[serde(default = "defaults::key_file")]
    pub key_file: PathBuf,
    /// The key that peers know this node by, mode 0600.
    #[serde(default = "defaults::peer_key_file")]
    pub peer_key_file: PathBuf,
    /// Headers, votes and the log of receipts.
    #[serde(default = "defaults::data_dir")]
    pub data_dir: PathBuf,
    /// The SVID that relays know this node by.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Relays, those first that are preferred. Validators meet over those that they have in common.
    #[serde(default)]
    pub relay: Vec<RelayConfig>,
    /// Relays that each frame goes over.
    #[serde(default = "defaults::relays_per_frame")]
    pub relays_per_frame: usize,
    /// Where leaves are taken, proofs, metrics and health are given: an address of this host or a private network, or `unix:` and the path of a
    /// socket. It has no lock of its own.
    #[serde(default = "defaults::api")]
    pub api: ApiAddress,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default = "defaults::log_level")]
    pub log_level: String,
    /// Follow the chain and vote on nothing, whatever keys there are.
    #[serde(default)]
    pub observe: bool,
    /// Lengths of blocks and rounds.
    #[serde(default)]
    pub timing: TimingConfig,
    /// What may wait for a header.
    #[serde(default)]
    pub mempool: MempoolConfig,
    /// A file of the first layer's blocks, a line of JSON each, that the force-inclusion inbox is read from. Without one it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_file: Option<PathBuf>,
    /// Peer keys in hex of nodes that follow this one without voting.
    #[serde(default)]
    pub observers: Vec<String>,
    /// Who may send receipts and attestations over BPCI, and for whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent: Vec<AgentConfig>,
    /// Random looks at what pinners keep.
    #[serde(default)]
    pub probe: ProbeConfig,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Its Ed25519 key, 32 bytes in hex.
    pub key: String,
    /// Tenants that it speaks for, 16 bytes in hex each; `"*"`: for all.
    pub tenants: Vec<String>,
}

impl AgentConfig {
    /// Looked into. `None`: a key or a tenant is none.
    pub fn agent(&self) -> Option<Agent> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key).ok()?;
        if self.tenants.iter().any(|text| text == "*") {
            return (self.tenants.len() == 1).then_some(Agent { key, tenants: Tenants::All });
        }
        let tenant = |text: &String| {
            let mut tenant = [0; 16];
            hex::decode_to_slice(text, &mut tenant).ok().map(|()| TenantId(tenant))
        };
        let tenants = self.tenants.iter().map(tenant).collect::<Option<BTreeSet<_>>>()?;
        (tenants.len() <= TENANTS_MAX).then_some(Agent { key, tenants: Tenants::These(tenants) })
    }
}

/// Random looks at what pinners keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// How many in a second, over all pinners. 0: none.
    pub per_s: u32,
    /// How long an answer is waited for, in ms.
    pub wait_ms: u64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { per_s: 1, wait_ms: 10_000 }
    }
}

/// Lengths in ms; the same at every node, or rounds do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingConfig {
    /// From a header's time to the next height.
    pub block_ms: u64,
    /// Of the first round.
    pub round_ms: u64,
    /// How often it is doubled, at most.
    pub doublings: u32,
}

impl Default for TimingConfig {
    fn default() -> Self {
        Self { block_ms: 250, round_ms: 1000, doublings: 5 }
    }
}

impl From<TimingConfig> for Timing {
    fn from(config: TimingConfig) -> Self {
        Self { block_ms: config.block_ms, round_ms: config.round_ms, doublings_max: config.doublings }
    }
}

/// Bounds of the pool of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MempoolConfig {
    /// Leaves in all.
    pub leaves: usize,
    /// Leaves of one tenant.
    pub leaves_per_tenant: usize,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { leaves: 65_536, leaves_per_tenant: 8_192 }
    }
}

mod defaults {
    use bpi_program::api::ApiAddress;

    use super::PathBuf;

    pub fn key_file() -> PathBuf {
        "/etc/bpi/validator.key".into()
    }
    pub fn peer_key_file() -> PathBuf {
        "/etc/bpi/peer.key".into()
    }
    pub fn data_dir() -> PathBuf {
        "/var/lib/bpi/validator".into()
    }
    pub fn relays_per_frame() -> usize {
        bpi_transport::spread::RELAYS_DEFAULT
    }
    pub fn api() -> ApiAddress {
        ApiAddress::loopback(7680)
    }
    pub fn log_level() -> String {
        "info".to_owned()
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it count from its folder.
    ///
    /// # Errors
    /// [`ConfigError`], which names file and field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &config::read(path, CONFIG_VARIABLE, FILE_BYTES_MAX)?)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] and [`ConfigError::Field`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = config::parse(path, text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut config.genesis, &mut config.key_file, &mut config.peer_key_file, &mut config.data_dir] {
            *file = folder.join(&*file);
        }
        config.inbox_file = config.inbox_file.map(|file| folder.join(file));
        config.identity.resolve(folder);
        config.api.resolve(folder);
        config::judged(path, config, Self::fault)
    }

    /// The first field that cannot work: its name, its value, what it has to be.
    fn fault(&self) -> Option<Fault> {
        let Self { timing, mempool, .. } = self;
        let is_key = |text: &String| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let relay_fault = bpi_transport::config::relays(&self.relay).err().map(|error| error.to_string());
        let key = "a peer key is 64 lower-case hexadecimal digits";
        [
            (
                log::LEVELS.contains(&self.log_level.as_str()),
                "log_level",
                self.log_level.clone(),
                "it has to be off, error, warn, info, debug or trace",
            ),
            (
                BLOCK_MS.contains(&timing.block_ms),
                "timing.block_ms",
                timing.block_ms.to_string(),
                "it has to be 20 to 60000",
            ),
            (
                ROUND_MS.contains(&timing.round_ms),
                "timing.round_ms",
                timing.round_ms.to_string(),
                "it has to be 100 to 600000",
            ),
            (
                timing.doublings <= DOUBLINGS_MAX,
                "timing.doublings",
                timing.doublings.to_string(),
                "it has to be 16 or less",
            ),
            (
                LEAVES.contains(&mempool.leaves),
                "mempool.leaves",
                mempool.leaves.to_string(),
                "it has to be 1 to 1000000",
            ),
            (
                (1..=mempool.leaves).contains(&mempool.leaves_per_tenant),
                "mempool.leaves_per_tenant",
                mempool.leaves_per_tenant.to_string(),
                "it has to be 1 to mempool.leaves",
            ),
            (self.observers.len() <= OBSERVERS_MAX, "observers", self.observers.len().to_string(), "64 are the most"),
            (self.observers.iter().all(is_key), "observers", format!("{:?}", self.observers), key),
            (self.agent.len() <= AGENTS_MAX, "agent", self.agent.len().to_string(), "256 are the most"),
            (
                self.agent.iter().all(|agent| agent.agent().is_some()),
                "agent",
                format!("{:?}", self.agent.iter().find(|agent| agent.agent().is_none())),
                "it has to have a key of 64 hexadecimal digits, and up to 1024 tenants of 32 or \"*\" alone",
            ),
            (
                self.agent.iter().map(|agent| agent.key.to_ascii_lowercase()).collect::<BTreeSet<_>>().len()
                    == self.agent.len(),
                "agent",
                format!("{:?}", self.agent.iter().map(|agent| &agent.key).collect::<Vec<_>>()),
                "no two may have the same key",
            ),
            (
                self.probe.per_s <= PROBES_PER_S_MAX,
                "probe.per_s",
                self.probe.per_s.to_string(),
                "it has to be 100 or less",
            ),
            (
                ROUND_MS.contains(&self.probe.wait_ms),
                "probe.wait_ms",
                self.probe.wait_ms.to_string(),
                "it has to be 100 to 600000",
            ),
            (
                self.relay.is_empty() || self.identity.source().is_ok(),
                "identity",
                String::new(),
                "relays need either `svid_file` and `bundle_file`, or `workload_api`",
            ),
            (
                relay_fault.is_none(),
                "relay",
                relay_fault.unwrap_or_default(),
                "it has to be the id of a relay, and a host and a port",
            ),
            (
                (1..=RELAYS_PER_FRAME_MAX).contains(&self.relays_per_frame),
                "relays_per_frame",
                self.relays_per_frame.to_string(),
                "it has to be 1 to 8",
            ),
        ]
        .into_iter()
        .find(|(fine, ..)| !fine)
        .map(|(_, field, value, reason)| (field, value, reason))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_field_is_enough_and_paths_count_from_the_files_folder() {
        let config = Config::parse(Path::new("/site/validator.toml"), "genesis = \"genesis.toml\"").unwrap();
        assert_eq!(config.genesis, Path::new("/site/genesis.toml"));
        assert_eq!(config.data_dir, Path::new("/var/lib/bpi/validator"));
        assert_eq!(config.timing, TimingConfig { block_ms: 250, round_ms: 1000, doublings: 5 });
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(Path::new("/elsewhere/x"), &printed).unwrap(), config, "what is printed can be read");
    }

    #[test]
    fn the_example_has_every_field_and_the_defaults() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/validator.toml"));
        let example = Config::load(path).unwrap();
        let table: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let said: BTreeSet<_> = table.keys().collect();
        let printed: toml::Table = toml::from_str(&toml::to_string(&example).unwrap()).unwrap();
        assert_eq!(said, printed.keys().collect::<BTreeSet<_>>());
        let default = Config::parse(Path::new("/c"), "genesis = \"/etc/bpi/genesis.toml\"").unwrap();
        let own = Config { identity: example.identity.clone(), relay: example.relay.clone(), ..default };
        let (inbox_file, observers) = (example.inbox_file.clone(), example.observers.clone());
        assert_eq!(example, Config { inbox_file, observers, agent: example.agent.clone(), ..own });
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (text, wanted) in [
            ("", "missing field `genesis`"),
            ("genesis = \"g\"\nblock_ms = 3", "unknown field `block_ms`"),
            ("genesis = \"g\"\nlog_level = \"loud\"", "log_level = loud"),
            ("genesis = \"g\"\n[timing]\nblock_ms = 1", "timing.block_ms = 1"),
            ("genesis = \"g\"\n[timing]\nround_ms = 1", "timing.round_ms = 1"),
            ("genesis = \"g\"\n[timing]\ndoublings = 17", "timing.doublings = 17"),
            ("genesis = \"g\"\n[mempool]\nleaves = 0", "mempool.leaves = 0"),
            ("genesis = \"g\"\n[mempool]\nleaves = 5", "mempool.leaves_per_tenant = 8192"),
            ("genesis = \"g\"\nobservers = [\"AB\"]", "observers"),
            ("genesis = \"g\"\napi = \"here\"", "api = \"here\""),
            ("genesis = \"g\"\nrelays_per_frame = 0", "relays_per_frame = 0"),
            ("genesis = \"g\"\n[probe]\nper_s = 101", "probe.per_s = 101"),
            ("genesis = \"g\"\n[probe]\nwait_ms = 1", "probe.wait_ms = 1"),
            ("genesis = \"g\"\n[[agent]]\nkey = \"ab\"\ntenants = [\"*\"]", "64 hexadecimal digits"),
            (
                "genesis = \"g\"\n[[agent]]\nkey = \"1111111111111111111111111111111111111111111111111111111111111111\"\ntenants = [\"*\", \"11\"]",
                "\"*\" alone",
            ),
            ("genesis = \"g\"\n[[relay]]\nid = \"spiffe://d/relay/r\"\naddress = \"x:1\"", "svid_file"),
            (
                "genesis = \"g\"\n[identity]\nworkload_api = \"s\"\n[[relay]]\nid = \"spiffe://d/agent/r\"\naddress = \"x:1\"",
                "role",
            ),
        ] {
            let said = Config::parse(Path::new("/c"), text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{text:?} gave {said:?}");
        }
    }
}
