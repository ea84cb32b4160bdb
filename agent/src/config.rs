//! What an agent is told: one TOML file.
//!
//! Always true: an unknown field is an error, paths count from the file's folder, and what is loaded can work as far as that shows without touching
//! anything. Absent on purpose: secrets; the file names where they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bpi_program::api::ApiAddress;
pub use bpi_program::config::ConfigError;
use bpi_program::config::Fault;
use bpi_program::{config, log};
use bpi_protocol::availability::attestation::RECEIPTS_MAX;
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::placement::Identity;
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::log::leaf::TenantId;
use bpi_transport::config::{IdentityConfig, RelayConfig};
use serde::{Deserialize, Serialize};

/// Names the configuration when nothing else does.
pub const CONFIG_VARIABLE: &str = "BPI_AGENT_CONFIG";
/// What is read when nothing else was asked for.
pub const CONFIG_FILE: &str = "/etc/bpi/agent.toml";
/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Relays that a receipt tells of (bpi_protocol::frame::receipt).
const RELAYS_PER_FRAME_MAX: usize = 8;
/// The boundary of a tenant that has all that nobody else has.
pub const ALL_OTHERS: &str = "*";
const TENANTS_MAX: usize = 1024;
const MEMBERS_MAX: usize = 256;
const SNAPSHOT_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
const WAIT_MS: std::ops::RangeInclusive<u64> = 1..=600_000;

/// How an agent runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The chain whose headers count, as its genesis names it: 64 hexadecimal digits.
    pub chain: String,
    /// Whose headers and receipts are believed: the file that `docklock verify --trust` takes.
    pub trust_file: PathBuf,
    /// The key that validators and pinners know this agent by, mode 0600.
    #[serde(default = "defaults::peer_key_file")]
    pub peer_key_file: PathBuf,
    /// Where DockLock leaves records.
    #[serde(default = "defaults::spool_dir")]
    pub spool_dir: PathBuf,
    /// Sealed batches that are under way.
    #[serde(default = "defaults::outbox_dir")]
    pub outbox_dir: PathBuf,
    /// Batches, proofs and keyslots: `sqlite:PATH` or `postgres://…`.
    #[serde(default = "defaults::class")]
    pub class: String,
    /// Where evidence of each receipt is written when it is final; without it, evidence is made when it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_dir: Option<PathBuf>,
    /// The socket of the local API.
    #[serde(default = "defaults::socket")]
    pub socket: PathBuf,
    /// Where metrics and health are given: an address and a port, or `unix:` and the path of a socket. Without it they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ApiAddress>,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default = "defaults::log_level")]
    pub log_level: String,
    /// The SVID that relays know this agent by.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Relays, those first that are preferred.
    #[serde(default)]
    pub relay: Vec<RelayConfig>,
    /// Relays that each frame goes over.
    #[serde(default = "defaults::relays_per_frame")]
    pub relays_per_frame: usize,
    /// The chain's validators.
    #[serde(default)]
    pub validator: Vec<MemberConfig>,
    /// The chain's pinners.
    #[serde(default)]
    pub pinner: Vec<MemberConfig>,
    /// How batches are coded.
    #[serde(default)]
    pub coding: CodingConfig,
    /// When a batch is full.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Whose records are whose.
    #[serde(default)]
    pub tenant: Vec<TenantConfig>,
    /// Copies of db.class, to restore from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotConfig>,
    /// The containerd that runs containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdConfig>,
}

/// A validator or a pinner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its identity: 64 hexadecimal digits.
    pub key: String,
}

/// How batches are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodingConfig {
    /// Shards that are enough.
    pub k: u16,
    /// Shards.
    pub n: u16,
}

impl Default for CodingConfig {
    fn default() -> Self {
        Self { k: 4, n: 12 }
    }
}

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Receipts and aborts in it.
    pub receipts: u32,
    /// How long its first receipt waits for others, in ms.
    pub wait_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { receipts: RECEIPTS_MAX, wait_ms: 200 }
    }
}

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Its containerd namespaces; `"*"` for all that are nobody else's.
    pub boundaries: Vec<String>,
    /// X25519 keys of those who may read its batches: 64 hexadecimal digits each. Without one nobody can, not even to restore.
    pub readers: Vec<String>,
}

/// Copies of db.class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// The file, replaced whole by each copy. It should be on another disk than db.class.
    pub file: PathBuf,
    /// How long after a change it is made, in ms: what is newer would be lost with db.class.
    #[serde(default = "defaults::snapshot_ms")]
    pub every_ms: u64,
}

/// The containerd that runs containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerdConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// The namespace of containers that the agent is asked to run.
    #[serde(default = "defaults::namespace")]
    pub namespace: String,
    /// Where file systems of containers are made: `overlayfs`, or `native` where there is no overlay.
    #[serde(default = "defaults::snapshotter")]
    pub snapshotter: String,
}

mod defaults {
    use super::PathBuf;

    pub fn peer_key_file() -> PathBuf {
        "/etc/bpi/agent.key".into()
    }
    pub fn spool_dir() -> PathBuf {
        "/var/lib/docklock/spool".into()
    }
    pub fn outbox_dir() -> PathBuf {
        "/var/lib/bpi/agent/outbox".into()
    }
    pub fn class() -> String {
        "sqlite:/var/lib/bpi/agent/class.db".to_owned()
    }
    pub fn socket() -> PathBuf {
        "/run/bpi/agent.sock".into()
    }
    pub fn log_level() -> String {
        "info".to_owned()
    }
    pub fn relays_per_frame() -> usize {
        bpi_transport::spread::RELAYS_DEFAULT
    }
    pub fn snapshot_ms() -> u64 {
        60_000
    }
    pub fn namespace() -> String {
        "default".to_owned()
    }
    pub fn snapshotter() -> String {
        "overlayfs".to_owned()
    }
}

/// One tenant, as the agent uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// X25519 keys of those who may read.
    pub readers: Vec<[u8; 32]>,
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
        let files = [
            &mut config.trust_file,
            &mut config.peer_key_file,
            &mut config.spool_dir,
            &mut config.outbox_dir,
            &mut config.socket,
        ];
        for file in files.into_iter().chain(&mut config.evidence_dir) {
            *file = folder.join(&*file);
        }
        if let Some(file) = config.class.strip_prefix("sqlite:") {
            config.class = format!("sqlite:{}", folder.join(file).display());
        }
        if let Some(containerd) = &mut config.containerd {
            containerd.socket = folder.join(&containerd.socket);
        }
        if let Some(snapshot) = &mut config.snapshot {
            snapshot.file = folder.join(&snapshot.file);
        }
        if let Some(status) = &mut config.status {
            status.resolve(folder);
        }
        config.identity.resolve(folder);
        config::judged(path, config, Self::fault)
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        ChainId(digits(&self.chain).unwrap_or_default())
    }

    /// The validators' identities.
    pub fn validators(&self) -> Vec<Identity> {
        self.validator.iter().filter_map(|member| digits(&member.key)).collect()
    }

    /// The pinners' identities.
    pub fn pinners(&self) -> Vec<Identity> {
        self.pinner.iter().filter_map(|member| digits(&member.key)).collect()
    }

    /// Whose a containerd namespace is.
    pub fn tenant_of(&self, boundary: &str) -> Option<Tenant> {
        let has = |name: &str| self.tenant.iter().find(|tenant| tenant.boundaries.iter().any(|each| each == name));
        let tenant = has(boundary).or_else(|| has(ALL_OTHERS))?;
        let readers = tenant.readers.iter().filter_map(|reader| digits(reader)).collect();
        Some(Tenant { id: TenantId(digits(&tenant.id)?), readers })
    }

    /// The first field that cannot work: its name, its value, what it has to be.
    fn fault(&self) -> Option<Fault> {
        let boundaries: Vec<&String> = self.tenant.iter().flat_map(|tenant| &tenant.boundaries).collect();
        let distinct = boundaries.iter().collect::<BTreeSet<_>>().len();
        let relay_fault = bpi_transport::config::relays(&self.relay).err().map(|error| error.to_string());
        let key = "a key is 64 lower-case hexadecimal digits, and each is there once";
        let are_keys = |members: &[MemberConfig]| {
            let keys: BTreeSet<_> = members.iter().filter_map(|member| digits::<32>(&member.key)).collect();
            keys.len() == members.len() && members.len() <= MEMBERS_MAX
        };
        let CodingConfig { k, n } = self.coding;
        let tenants_fine = self.tenant.iter().all(|tenant| {
            let readers = tenant.readers.iter().all(|reader| digits::<32>(reader).is_some());
            digits::<16>(&tenant.id).is_some() && readers && (1..=16).contains(&tenant.readers.len())
        });
        [
            (
                digits::<32>(&self.chain).is_some(),
                "chain",
                self.chain.clone(),
                "it has to be 64 lower-case hexadecimal digits",
            ),
            (
                log::LEVELS.contains(&self.log_level.as_str()),
                "log_level",
                self.log_level.clone(),
                "it has to be off, error, warn, info, debug or trace",
            ),
            (
                self.class.starts_with("sqlite:") || self.class.starts_with("postgres://"),
                "class",
                String::new(),
                "it has to be `sqlite:` and a path, or `postgres://` and so on",
            ),
            (
                !self.validator.is_empty() && are_keys(&self.validator),
                "validator",
                format!("{:?}", self.validator),
                key,
            ),
            (are_keys(&self.pinner), "pinner", format!("{:?}", self.pinner), key),
            (
                Coding::new(k, n, 1).is_ok(),
                "coding",
                format!("{k} of {n}"),
                "k has to be a power of two of at most 64, and n more than k and at most 256",
            ),
            (
                (1..=RECEIPTS_MAX).contains(&self.batch.receipts),
                "batch.receipts",
                self.batch.receipts.to_string(),
                "it has to be 1 to 1024",
            ),
            (
                WAIT_MS.contains(&self.batch.wait_ms),
                "batch.wait_ms",
                self.batch.wait_ms.to_string(),
                "it has to be 1 to 600000",
            ),
            (
                self.snapshot.as_ref().is_none_or(|snapshot| SNAPSHOT_MS.contains(&snapshot.every_ms)),
                "snapshot.every_ms",
                self.snapshot.as_ref().map_or(0, |snapshot| snapshot.every_ms).to_string(),
                "it has to be 100 to 86400000",
            ),
            (
                !self.tenant.is_empty() && self.tenant.len() <= TENANTS_MAX,
                "tenant",
                self.tenant.len().to_string(),
                "1 to 1024 of them are needed",
            ),
            (
                tenants_fine,
                "tenant",
                format!("{:?}", self.tenant),
                "a tenant has an id of 32 hexadecimal digits, and 1 to 16 readers of 64",
            ),
            (
                distinct == boundaries.len(),
                "tenant.boundaries",
                format!("{boundaries:?}"),
                "each boundary is of one tenant",
            ),
            (
                self.relay.is_empty() || self.identity.source().is_ok(),
                "identity",
                String::new(),
                "relays need either `svid_file` and `bundle_file`, or `workload_api`",
            ),
            (
                relay_fault.is_none() && !self.relay.is_empty(),
                "relay",
                relay_fault.unwrap_or_else(|| "none".to_owned()),
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

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn whole() -> String {
        let (key, other, tenant) = ("ab".repeat(32), "cd".repeat(32), "11".repeat(16));
        format!(
            "chain = \"{key}\"\ntrust_file = \"trust.json\"\n[identity]\nsvid_file = \"a.pem\"\nbundle_file = \"b.pem\"\n\
             [[relay]]\nid = \"spiffe://d/relay/r\"\naddress = \"x:1\"\n[[validator]]\nkey = \"{key}\"\n[[pinner]]\nkey = \"{other}\"\n\
             [[tenant]]\nid = \"{tenant}\"\nboundaries = [\"demo\"]\nreaders = [\"{other}\"]\n"
        )
    }

    #[test]
    fn paths_count_from_the_files_folder_and_what_is_printed_can_be_read() {
        let config = Config::parse(Path::new("/site/agent.toml"), &whole()).unwrap();
        assert_eq!(config.trust_file, Path::new("/site/trust.json"));
        assert_eq!(config.class, "sqlite:/var/lib/bpi/agent/class.db");
        assert_eq!((config.validators().len(), config.pinners().len()), (1, 1));
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(Path::new("/elsewhere/x"), &printed).unwrap(), config);
    }

    #[test]
    fn the_example_has_every_field() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml"));
        let example = Config::load(path).unwrap();
        let table: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let printed: toml::Table = toml::from_str(&toml::to_string(&example).unwrap()).unwrap();
        assert_eq!(table.keys().collect::<BTreeSet<_>>(), printed.keys().collect::<BTreeSet<_>>());
        assert_eq!((example.coding, example.batch), (CodingConfig::default(), BatchConfig::default()));
    }

    #[test]
    fn a_boundary_is_its_tenants_or_of_who_has_all_others() {
        let config = Config::parse(Path::new("/c"), &whole()).unwrap();
        assert_eq!(config.tenant_of("demo").unwrap().id, TenantId([0x11; 16]));
        assert_eq!(config.tenant_of("other"), None);
        let more = format!(
            "{}[[tenant]]\nid = \"{}\"\nboundaries = [\"*\"]\nreaders = [\"{}\"]\n",
            whole(),
            "22".repeat(16),
            "ab".repeat(32)
        );
        let config = Config::parse(Path::new("/c"), &more).unwrap();
        assert_eq!(config.tenant_of("demo").unwrap().id, TenantId([0x11; 16]));
        assert_eq!(config.tenant_of("other").unwrap().id, TenantId([0x22; 16]));
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let whole = whole();
        for (from, to, wanted) in [
            ("boundaries = [\"demo\"]", "boundaries = [\"demo\", \"demo\"]", "tenant.boundaries"),
            ("[[pinner]]", "[coding]\nk = 3\nn = 9\n[[pinner]]", "coding = 3 of 9"),
            ("[[pinner]]", "[batch]\nreceipts = 2000\n[[pinner]]", "batch.receipts = 2000"),
            ("[[pinner]]", "[batch]\nwait_ms = 0\n[[pinner]]", "batch.wait_ms = 0"),
            ("[identity]", "class = \"mysql://x\"\n[identity]", "class"),
            ("[identity]", "log_level = \"loud\"\n[identity]", "log_level = loud"),
            ("[identity]", "unknown = 1\n[identity]", "unknown field `unknown`"),
            ("svid_file = \"a.pem\"\n", "", "identity"),
            ("relay/r", "agent/r", "relay"),
            ("[\"cdcd", "[\"CDcd", "readers"),
        ] {
            let text = whole.replacen(from, to, 1);
            let said = Config::parse(Path::new("/c"), &text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{to:?} gave {said:?}");
        }
    }
}
