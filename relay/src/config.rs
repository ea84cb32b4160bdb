//! The one configuration file of a relay: TOML in which an unknown field is refused, and every field but `identity` has a default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use bpi_program::config::ConfigError;
use bpi_program::config::Fault;
use bpi_program::{config, log};
use bpi_transport::config::IdentityConfig;
use serde::{Deserialize, Serialize};

use crate::budget::Rates;
use crate::envelope::NetworkId;
use crate::feed::FEEDS_MAX;
use crate::peer::{Role, WEIGHT_MAX};
use crate::store::StoreBounds;
use crate::switch::{Limits, Settings};
use crate::targets::Targets;

/// Environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "BPI_RELAY_CONFIG";
/// The file that is read when nothing else was asked for.
pub const CONFIG_FILE: &str = "/etc/bpi/relay.toml";
/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Networks that the proxy may reach besides, at most: each datagram is held against all of them.
const ALLOWED_MAX: usize = 64;
/// Greatest capacity: a hundred gigabits.
const BYTES_PER_S_MAX: u64 = 12_500_000_000;
/// A frame costs at least a nanosecond of the relay.
const FRAMES_PER_S_MAX: u64 = 1_000_000_000;
/// Bytes of the largest frame with what it costs to keep: a smaller bound would keep no large frame at all.
const KEPT_BYTES_MIN: u64 = 128 * 1024;

/// How a relay runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Networks that are served, 16 lower-case hexadecimal digits each; none means all.
    #[serde(default)]
    pub networks: Vec<String>,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default = "defaults::log_level")]
    pub log_level: String,
    /// How long peers have to go elsewhere before the relay ends, in s.
    #[serde(default = "defaults::drain_s")]
    pub drain_s: u32,
    /// Threads that carry frames. One is best for one or two processors.
    #[serde(default = "defaults::threads")]
    pub threads: u32,
    /// Where it listens.
    #[serde(default)]
    pub listen: ListenConfig,
    /// Who it is.
    pub identity: IdentityConfig,
    /// Whose networks addresses are in, as the signed directory says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryConfig>,
    /// What it takes in, and how that is shared.
    #[serde(default)]
    pub budget: BudgetConfig,
    /// What waits for destinations that were here a moment ago.
    #[serde(default)]
    pub store: StoreConfig,
    /// Bounds of its tables.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// What it proxies.
    #[serde(default)]
    pub masque: Targets,
}

/// Where a relay listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// QUIC.
    pub udp: SocketAddr,
    /// TLS, for peers whose UDP is blocked.
    pub tcp: SocketAddr,
    /// Metrics and status: on loopback, it has no lock of its own.
    pub status: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            udp: SocketAddr::from(([0, 0, 0, 0], 443)),
            tcp: SocketAddr::from(([0, 0, 0, 0], 443)),
            status: SocketAddr::from(([127, 0, 0, 1], 7690)),
        }
    }
}

/// The signed directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The directory, read again when it changes.
    pub file: PathBuf,
    /// The Ed25519 key that signs it, 64 lower-case hexadecimal digits.
    pub key: String,
}

/// What a relay takes in, and how that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// Bytes that it takes in, a second.
    pub bytes_per_s: u64,
    /// Frames that it takes in, a second.
    pub frames_per_s: u64,
    /// How much unused capacity may be caught up with at once, in ms.
    pub burst_ms: u32,
    /// The weight of a prefix when spare capacity is short.
    pub prefix_weight: u32,
    /// The weight of an ASN when spare capacity is short.
    pub asn_weight: u32,
    /// The part of the capacity that is guaranteed to one prefix, in percent.
    pub prefix_guarantee_percent: u32,
    /// The part of the capacity that is guaranteed to one ASN, in percent.
    pub asn_guarantee_percent: u32,
    /// The weights of SPIFFE ids.
    pub weights: WeightsConfig,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        let Rates {
            bytes_per_s,
            frames_per_s,
            burst_ms,
            prefix_weight,
            asn_weight,
            prefix_guarantee_percent,
            asn_guarantee_percent,
        } = Rates::default();
        Self {
            bytes_per_s,
            frames_per_s,
            burst_ms,
            prefix_weight,
            asn_weight,
            prefix_guarantee_percent,
            asn_guarantee_percent,
            weights: WeightsConfig::default(),
        }
    }
}

/// The weights of SPIFFE ids, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// Of an agent.
    pub agent: u32,
    /// Of a validator: receipts and headers of a whole network come from it.
    pub validator: u32,
    /// Of a relay.
    pub relay: u32,
    /// Of a pinner.
    pub pinner: u32,
    /// Of a core service.
    pub service: u32,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Self { agent: 1, validator: 8, relay: 4, pinner: 4, service: 2 }
    }
}

impl WeightsConfig {
    /// The weight of a role.
    pub fn of(&self, role: Role) -> u32 {
        match role {
            Role::Agent => self.agent,
            Role::Validator => self.validator,
            Role::Relay => self.relay,
            Role::Pinner => self.pinner,
            Role::Service => self.service,
        }
    }
}

/// What waits for destinations that were here a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Bytes for one key.
    pub key_bytes: u64,
    /// Bytes of one sender.
    pub sender_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// How long a frame waits, and for how long a key that left has a place, in s.
    pub keep_s: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let StoreBounds { key_bytes, sender_bytes, total_bytes, keep_s } = StoreBounds::default();
        Self { key_bytes: key_bytes as u64, sender_bytes: sender_bytes as u64, total_bytes: total_bytes as u64, keep_s }
    }
}

/// Bounds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections in all.
    pub connections: u32,
    /// Connections of one SPIFFE id.
    pub connections_per_id: u32,
    /// Connections from one /24 or /48.
    pub connections_per_prefix: u32,
    /// Connections from one ASN.
    pub connections_per_asn: u32,
    /// Destination keys that are known, registered or within the last hour.
    pub keys: u32,
    /// Frames that are remembered in each of two generations, to drop duplicates.
    pub recent_frames: u32,
    /// How long such a generation lasts at most, in ms.
    pub recent_ms: u64,
    /// For how long a frame may live at most, in s.
    pub lifetime_s: u32,
    /// By how much a sender's clock may be off, in s.
    pub skew_s: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let Limits { connections, per_account, per_prefix, per_asn, keys, recent, recent_ms, lifetime_s, skew_s } =
            Limits::default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            connections: count(connections),
            connections_per_id: per_account,
            connections_per_prefix: per_prefix,
            connections_per_asn: per_asn,
            keys: count(keys),
            recent_frames: count(recent),
            recent_ms,
            lifetime_s,
            skew_s,
        }
    }
}

mod defaults {
    pub fn log_level() -> String {
        "info".to_owned()
    }
    pub fn threads() -> u32 {
        1
    }
    pub fn drain_s() -> u32 {
        30
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
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
        config.identity.resolve(folder);
        if let Some(directory) = &mut config.directory {
            directory.file = folder.join(&directory.file);
        }
        config::judged(path, config, Self::fault)
    }

    /// Looks whether the files that it names can be opened. Their contents are judged by who reads them.
    ///
    /// # Errors
    /// [`ConfigError::Named`].
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let identity = &self.identity;
        let named = [
            ("identity.svid_file", identity.svid_file.as_ref()),
            ("identity.svid_key_file", identity.svid_key_file.as_ref()),
            ("identity.bundle_file", identity.bundle_file.as_ref()),
            ("directory.file", self.directory.as_ref().map(|directory| &directory.file)),
        ];
        for (field, path) in named.into_iter().filter_map(|(field, path)| Some((field, path?))) {
            std::fs::File::open(path).map_err(|source| ConfigError::Named { field, path: path.clone(), source })?;
        }
        if let Some(path) = &identity.workload_api {
            let field = "identity.workload_api";
            std::fs::metadata(path).map_err(|source| ConfigError::Named { field, path: path.clone(), source })?;
        }
        Ok(())
    }

    /// What the switch works by, with sixteen bytes of the kernel's randomness.
    pub fn settings(&self, seed: [u8; 16]) -> Settings {
        let Self { budget, store, limits, .. } = self;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Settings {
            networks: self.network_ids(),
            limits: Limits {
                connections: limits.connections as usize,
                per_account: limits.connections_per_id,
                per_prefix: limits.connections_per_prefix,
                per_asn: limits.connections_per_asn,
                keys: limits.keys as usize,
                recent: limits.recent_frames as usize,
                recent_ms: limits.recent_ms,
                lifetime_s: limits.lifetime_s,
                skew_s: limits.skew_s,
            },
            rates: Rates {
                bytes_per_s: budget.bytes_per_s,
                frames_per_s: budget.frames_per_s,
                burst_ms: budget.burst_ms,
                prefix_weight: budget.prefix_weight,
                asn_weight: budget.asn_weight,
                prefix_guarantee_percent: budget.prefix_guarantee_percent,
                asn_guarantee_percent: budget.asn_guarantee_percent,
            },
            store: StoreBounds {
                key_bytes: size(store.key_bytes),
                sender_bytes: size(store.sender_bytes),
                total_bytes: size(store.total_bytes),
                keep_s: store.keep_s,
            },
            seed,
        }
    }

    /// The networks that are served.
    pub fn network_ids(&self) -> Vec<NetworkId> {
        let read = |text: &String| hex::decode(text).ok()?.try_into().ok().map(NetworkId);
        self.networks.iter().filter_map(read).collect()
    }

    /// The first field that cannot work: its name, its value, what it has to be.
    fn fault(&self) -> Option<Fault> {
        self.fault_of_place().or_else(|| self.fault_of_identity()).or_else(|| self.fault_of_numbers())
    }

    fn fault_of_place(&self) -> Option<Fault> {
        let Self { listen, masque, .. } = self;
        first([
            (
                log::LEVELS.contains(&self.log_level.as_str()),
                "log_level",
                self.log_level.clone(),
                "it has to be off, error, warn, info, debug or trace",
            ),
            (
                self.networks.iter().all(|text| is_hex(text, 16)),
                "networks",
                format!("{:?}", self.networks),
                "a network is 16 lower-case hexadecimal digits",
            ),
            (self.networks.len() <= FEEDS_MAX, "networks", self.networks.len().to_string(), "16 are the most"),
            (
                listen.status.ip().is_loopback(),
                "listen.status",
                listen.status.to_string(),
                "it has to be an address of loopback: there is no lock on it",
            ),
            (
                masque.allowed.len() <= ALLOWED_MAX,
                "masque.allowed",
                masque.allowed.len().to_string(),
                "64 are the most",
            ),
        ])
    }

    fn fault_of_identity(&self) -> Option<Fault> {
        let directory_key = self.directory.as_ref().map_or("", |directory| &directory.key);
        first([
            (
                self.identity.source().is_ok(),
                "identity",
                "these fields".to_owned(),
                "it has to be svid_file and bundle_file (and svid_key_file when the key is not in the first), or workload_api alone",
            ),
            (
                self.directory.is_none() || is_hex(directory_key, 64),
                "directory.key",
                directory_key.to_owned(),
                "it has to be 64 lower-case hexadecimal digits",
            ),
        ])
    }

    fn fault_of_numbers(&self) -> Option<Fault> {
        let Self { budget, store, limits, .. } = self;
        let weights = budget.weights;
        let within = |value: u64, bounds: std::ops::RangeInclusive<u64>, field, reason| {
            (bounds.contains(&value), field, value.to_string(), reason)
        };
        let wide = |value: u32, bounds, field, reason| within(u64::from(value), bounds, field, reason);
        let connections = u64::from(limits.connections);
        let no_more = "it has to be 1 to limits.connections";
        let weight = "it has to be 1 to 64";
        let weight_max = u64::from(WEIGHT_MAX);
        first([
            wide(self.threads, 1..=64, "threads", "it has to be 1 to 64"),
            wide(self.drain_s, 0..=3600, "drain_s", "it has to be 3600 or less"),
            within(
                budget.bytes_per_s,
                65_536..=BYTES_PER_S_MAX,
                "budget.bytes_per_s",
                "it has to be 65536 to 12500000000",
            ),
            within(budget.frames_per_s, 1..=FRAMES_PER_S_MAX, "budget.frames_per_s", "it has to be 1 to 1000000000"),
            wide(budget.burst_ms, 1..=10_000, "budget.burst_ms", "it has to be 1 to 10000"),
            wide(budget.prefix_weight, 1..=65_536, "budget.prefix_weight", "it has to be 1 to 65536"),
            wide(budget.asn_weight, 1..=65_536, "budget.asn_weight", "it has to be 1 to 65536"),
            wide(budget.prefix_guarantee_percent, 1..=100, "budget.prefix_guarantee_percent", "it has to be 1 to 100"),
            wide(budget.asn_guarantee_percent, 1..=100, "budget.asn_guarantee_percent", "it has to be 1 to 100"),
            wide(weights.agent, 1..=weight_max, "budget.weights.agent", weight),
            wide(weights.validator, 1..=weight_max, "budget.weights.validator", weight),
            wide(weights.relay, 1..=weight_max, "budget.weights.relay", weight),
            wide(weights.pinner, 1..=weight_max, "budget.weights.pinner", weight),
            wide(weights.service, 1..=weight_max, "budget.weights.service", weight),
            within(store.total_bytes, KEPT_BYTES_MIN..=1 << 34, "store.total_bytes", "it has to be 131072 to 16 GiB"),
            within(
                store.key_bytes,
                KEPT_BYTES_MIN..=store.total_bytes,
                "store.key_bytes",
                "it has to be 131072 to store.total_bytes",
            ),
            within(
                store.sender_bytes,
                KEPT_BYTES_MIN..=store.total_bytes,
                "store.sender_bytes",
                "it has to be 131072 to store.total_bytes",
            ),
            wide(store.keep_s, 0..=600, "store.keep_s", "it has to be 600 or less"),
            within(connections, 1..=1_000_000, "limits.connections", "it has to be 1 to 1000000"),
            wide(limits.connections_per_id, 1..=connections, "limits.connections_per_id", no_more),
            wide(limits.connections_per_prefix, 1..=connections, "limits.connections_per_prefix", no_more),
            wide(limits.connections_per_asn, 1..=connections, "limits.connections_per_asn", no_more),
            wide(limits.keys, 1..=16_000_000, "limits.keys", "it has to be 1 to 16000000"),
            wide(limits.recent_frames, 1..=100_000_000, "limits.recent_frames", "it has to be 1 to 100000000"),
            within(limits.recent_ms, 1..=600_000, "limits.recent_ms", "it has to be 1 to 600000"),
            wide(limits.lifetime_s, 1..=600, "limits.lifetime_s", "it has to be 1 to 600"),
            wide(limits.skew_s, 0..=60, "limits.skew_s", "it has to be 60 or less"),
        ])
    }
}

fn first<const N: usize>(checks: [(bool, &'static str, String, &'static str); N]) -> Option<Fault> {
    checks.into_iter().find(|(fine, ..)| !fine).map(|(_, field, value, reason)| (field, value, reason))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LEAST: &str = "[identity]\nworkload_api = \"api.sock\"\n";

    #[test]
    fn an_identity_is_enough_and_paths_count_from_the_files_folder() {
        let config = Config::parse(Path::new("/site/relay.toml"), LEAST).unwrap();
        assert_eq!(config.identity.workload_api.as_deref(), Some(Path::new("/site/api.sock")));
        assert_eq!(config.settings([3; 16]), Settings { seed: [3; 16], ..Settings::default() });
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(Path::new("/elsewhere/x"), &printed).unwrap(), config, "what is printed can be read");
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let files = "svid_file = \"a\"\nsvid_key_file = \"b\"\n";
        for (text, wanted) in [
            (String::new(), "missing field `identity`"),
            ("[identity]\n".to_owned(), "identity = these fields"),
            (format!("[identity]\n{files}"), "svid_file and bundle_file"),
            (format!("[identity]\n{files}bundle_file = \"c\"\nworkload_api = \"d\""), "workload_api alone"),
            (format!("burst_ms = 3\n{LEAST}"), "unknown field `burst_ms`"),
            (format!("log_level = \"loud\"\n{LEAST}"), "log_level = loud"),
            (format!("networks = [\"00FF\"]\n{LEAST}"), "networks = [\"00FF\"]"),
            (format!("drain_s = 3601\n{LEAST}"), "drain_s = 3601"),
            (format!("{LEAST}[listen]\nstatus = \"0.0.0.0:1\""), "listen.status = 0.0.0.0:1"),
            (format!("{LEAST}[directory]\nfile = \"d\"\nkey = \"ab\""), "directory.key = ab"),
            (format!("{LEAST}[budget]\nbytes_per_s = 1"), "budget.bytes_per_s = 1"),
            (format!("{LEAST}[budget.weights]\nagent = 65"), "budget.weights.agent = 65"),
            (format!("{LEAST}[store]\nkey_bytes = 99"), "store.key_bytes = 99"),
            (format!("{LEAST}[limits]\nconnections = 100"), "limits.connections_per_prefix = 256"),
            (format!("{LEAST}[masque]\nroles = [\"king\"]"), "unknown variant `king`"),
            (format!("{LEAST}[[masque.allowed]]\nnet = \"10.0.0.1/8\"\nports = \"1\""), "bits beyond its /8"),
        ] {
            let said = Config::parse(Path::new("/c"), &text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{text:?} gave {said:?}");
        }
    }
}
