//! The one configuration file of a pinner: TOML in which an unknown field is refused, and every field but `chain` has a default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bpi_program::api::ApiAddress;
pub use bpi_program::config::ConfigError;
use bpi_program::config::Fault;
use bpi_program::{config, log};
use bpi_protocol::consensus::ids::ChainId;
use bpi_transport::config::{IdentityConfig, RelayConfig};
use serde::{Deserialize, Serialize};

use crate::keeper::{Policy, Staging, TenantPolicy, Tenants};

/// Environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "BPI_PINNER_CONFIG";
/// The file that is read when nothing else was asked for.
pub const CONFIG_FILE: &str = "/etc/bpi/pinner.toml";
/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Relays that a receipt of BPCI tells of.
const RELAYS_PER_FRAME_MAX: usize = 8;
/// Agents, pinners and validators, each at most.
const MEMBERS_MAX: usize = 1024;
/// Tenants with a policy of their own, at most.
const TENANTS_MAX: usize = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const KEY: &str = "it has to be 64 lower-case hexadecimal digits";

/// How a pinner runs here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The chain that acknowledgements are for: 64 hexadecimal digits, as a validator's status says.
    pub chain: String,
    /// The key that peers know this pinner by and that signs acknowledgements, mode 0600.
    #[serde(default = "defaults::key_file")]
    pub key_file: PathBuf,
    /// Index, log, staging, and shards unless they are elsewhere.
    #[serde(default = "defaults::data_dir")]
    pub data_dir: PathBuf,
    /// Where health, metrics and status are: an address of loopback, or `unix:` and the path of a socket. It has no lock of its own.
    #[serde(default = "defaults::api")]
    pub api: ApiAddress,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default = "defaults::log_level")]
    pub log_level: String,
    /// Where it stands, for the figures of diversity.
    #[serde(default)]
    pub region: String,
    /// Take any shard, whatever placement says: for a devnet with one pinner.
    #[serde(default)]
    pub accept_any: bool,
    /// Relays that each frame goes over.
    #[serde(default = "defaults::relays_per_frame")]
    pub relays_per_frame: usize,
    /// The SVID that relays know this pinner by.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Where shards are.
    #[serde(default)]
    pub store: StoreConfig,
    /// What waits for its pieces.
    #[serde(default)]
    pub staging: StagingConfig,
    /// Reading all that is kept, again and again.
    #[serde(default)]
    pub scrub: ScrubConfig,
    /// Making bad shards anew.
    #[serde(default)]
    pub repair: RepairConfig,
    /// What is answered to who asks.
    #[serde(default)]
    pub answers: AnswersConfig,
    /// What holds for tenants that have no entry of their own.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Relays, those first that are preferred.
    #[serde(default)]
    pub relay: Vec<RelayConfig>,
    /// Who brings batches.
    #[serde(default)]
    pub agent: Vec<AgentConfig>,
    /// The other pinners. They and this one decide who keeps what.
    #[serde(default)]
    pub peer: Vec<MemberConfig>,
    /// Validators: who is told of wrong encodings.
    #[serde(default)]
    pub validator: Vec<MemberConfig>,
    /// Tenants with a policy of their own.
    #[serde(default)]
    pub tenant: Vec<TenantConfig>,
}

/// Where shards are: `data_dir/shards` unless a bucket is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// A bucket: `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`. Without it, shards are in `data_dir/shards`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the bucket's client needs, by the names of its provider: region, endpoint, keys. What is not here is taken from the environment.
    pub options: BTreeMap<String, String>,
    /// A file of more of them, `name = "value"`, mode 0600: for keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options_file: Option<PathBuf>,
    /// How long one answer of the bucket is waited for, in s.
    pub timeout_s: u32,
    /// Bytes of the disk that stay free.
    pub reserve_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: None, options: BTreeMap::new(), options_file: None, timeout_s: 30, reserve_bytes: GIB }
    }
}

/// Bounds of what waits for its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StagingConfig {
    /// Bytes of disk in all.
    pub bytes: u64,
    /// Bytes of one agent.
    pub bytes_per_agent: u64,
    /// Batches in all.
    pub offers: usize,
    /// Batches of one agent.
    pub offers_per_agent: usize,
    /// How long a batch may wait for its next piece, in s.
    pub wait_s: u64,
}

impl Default for StagingConfig {
    fn default() -> Self {
        // A shard of the longest batch is 64 MiB / k, and all twelve of 4-of-12 are 204 MiB with their trees. In memory is 1/32 of it.
        Self { bytes: GIB, bytes_per_agent: 512 * MIB, offers: 256, offers_per_agent: 64, wait_s: 300 }
    }
}

/// How all that is kept is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubConfig {
    /// A batch is read again after so long, in s.
    pub every_s: u64,
    /// Bytes that are read in a second.
    pub bytes_per_s: u64,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { every_s: 7 * 86_400, bytes_per_s: 8 * MIB }
    }
}

/// How bad shards are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepairConfig {
    /// How often bad shards are looked for, in s.
    pub every_s: u64,
    /// How long a pinner may take to answer, in s.
    pub answer_s: u64,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self { every_s: 30, answer_s: 20 }
    }
}

/// What is answered to who asks, whoever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswersConfig {
    /// Probes and descriptions in a second, of one who is not named here.
    pub per_s: u32,
    /// The same of all of them.
    pub per_s_in_all: u32,
    /// Bytes of chunks in a second, of one.
    pub bytes_per_s: u64,
    /// Sessions in each direction.
    pub sessions: usize,
}

impl Default for AnswersConfig {
    fn default() -> Self {
        Self { per_s: 64, per_s_in_all: 2000, bytes_per_s: 32 * MIB, sessions: 1024 }
    }
}

/// What holds for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Bytes that it may have here.
    pub quota_bytes: u64,
    /// How long its shards are kept, in days.
    pub retention_days: u32,
    /// Nothing of it is let go.
    pub legal_hold: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { quota_bytes: 100 * GIB, retention_days: 400, legal_hold: false }
    }
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Its identity, 64 hexadecimal digits.
    pub key: String,
    /// Whose batches it brings, 32 hexadecimal digits each; `"*"`: anybody's.
    pub tenants: Vec<String>,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its identity, 64 hexadecimal digits: also under the name that `bpi-pinner keygen` prints.
    #[serde(alias = "identity")]
    pub key: String,
    /// Where it stands.
    #[serde(default)]
    pub region: String,
}

/// A tenant with a policy of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// Which, 32 hexadecimal digits.
    pub id: String,
    /// Bytes that it may have here.
    #[serde(default = "defaults::quota_bytes")]
    pub quota_bytes: u64,
    /// How long its shards are kept, in days.
    #[serde(default = "defaults::retention_days")]
    pub retention_days: u32,
    /// Nothing of it is let go.
    #[serde(default)]
    pub legal_hold: bool,
}

mod defaults {
    use bpi_program::api::ApiAddress;

    use super::{PathBuf, PolicyConfig};

    pub fn key_file() -> PathBuf {
        "/etc/bpi/pinner.key".into()
    }
    pub fn data_dir() -> PathBuf {
        "/var/lib/bpi/pinner".into()
    }
    pub fn relays_per_frame() -> usize {
        bpi_transport::spread::RELAYS_DEFAULT
    }
    pub fn api() -> ApiAddress {
        ApiAddress::loopback(7700)
    }
    pub fn log_level() -> String {
        "info".to_owned()
    }
    pub fn quota_bytes() -> u64 {
        PolicyConfig::default().quota_bytes
    }
    pub fn retention_days() -> u32 {
        PolicyConfig::default().retention_days
    }
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

type Check = (bool, &'static str, String, &'static str);

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
        for file in [&mut config.key_file, &mut config.data_dir] {
            *file = folder.join(&*file);
        }
        config.store.options_file = config.store.options_file.map(|file| folder.join(file));
        config.identity.resolve(folder);
        config.api.resolve(folder);
        config::judged(path, config, Self::fault)
    }

    /// The chain.
    pub fn chain_id(&self) -> ChainId {
        ChainId(bytes_of(&self.chain).unwrap_or_default())
    }

    /// Identities of agents, the other pinners and validators, in that order.
    pub fn members(&self) -> [Vec<[u8; 32]>; 3] {
        let of = |members: &[MemberConfig]| members.iter().filter_map(|member| bytes_of(&member.key)).collect();
        let agents = self.agent.iter().filter_map(|agent| bytes_of(&agent.key)).collect();
        [agents, of(&self.peer), of(&self.validator)]
    }

    /// What holds here, for a pinner of this identity.
    pub fn policy(&self, identity: [u8; 32]) -> Policy {
        let tenants = |agent: &AgentConfig| match agent.tenants.iter().any(|tenant| tenant == "*") {
            true => Tenants::All,
            false => Tenants::Some(agent.tenants.iter().filter_map(|tenant| bytes_of(tenant)).collect::<BTreeSet<_>>()),
        };
        let [_, mut pinners, _] = self.members();
        pinners.push(identity);
        pinners.sort_unstable();
        pinners.dedup();
        let StagingConfig { bytes, bytes_per_agent, offers, offers_per_agent, wait_s } = self.staging;
        Policy {
            chain: self.chain_id(),
            agents: self.agent.iter().filter_map(|agent| Some((bytes_of(&agent.key)?, tenants(agent)))).collect(),
            pinners,
            accept_any: self.accept_any,
            tenant: self.policy.into(),
            tenants: self.tenant.iter().filter_map(|tenant| Some((bytes_of(&tenant.id)?, tenant.into()))).collect(),
            staging: Staging {
                bytes_max: bytes,
                agent_bytes_max: bytes_per_agent,
                offers_max: offers,
                agent_offers_max: offers_per_agent,
                wait_s,
            },
            reserve_bytes: self.store.reserve_bytes,
        }
    }

    /// The first field that cannot work: its name, its value, what it has to be.
    fn fault(&self) -> Option<Fault> {
        self.faults_of_members()
            .into_iter()
            .chain(self.faults_of_numbers())
            .find(|(fine, ..)| !fine)
            .map(|(_, field, value, reason)| (field, value, reason))
    }

    fn faults_of_members(&self) -> Vec<Check> {
        let relay_fault = bpi_transport::config::relays(&self.relay).err().map(|error| error.to_string());
        let mut checks: Vec<Check> = vec![
            (bytes_of::<32>(&self.chain).is_some(), "chain", self.chain.clone(), KEY),
            (
                log::LEVELS.contains(&self.log_level.as_str()),
                "log_level",
                self.log_level.clone(),
                "it has to be off, error, warn, info, debug or trace",
            ),
            (
                self.api.is_of_this_host(),
                "api",
                self.api.to_string(),
                "it has to be an address of loopback and a port, or \"unix:\" and a path",
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
                self.tenant.len() <= TENANTS_MAX,
                "tenant",
                self.tenant.len().to_string(),
                "4096 are the most that have a policy of their own",
            ),
        ];
        for (field, keys) in [
            ("agent.key", self.agent.iter().map(|agent| &agent.key).collect::<Vec<_>>()),
            ("peer.key", self.peer.iter().map(|peer| &peer.key).collect()),
            ("validator.key", self.validator.iter().map(|validator| &validator.key).collect()),
        ] {
            checks.push((keys.len() <= MEMBERS_MAX, field, keys.len().to_string(), "1024 are the most"));
            checks.extend(keys.into_iter().map(|key| (bytes_of::<32>(key).is_some(), field, key.clone(), KEY)));
        }
        let tenant = "it has to be 32 lower-case hexadecimal digits";
        let of_agents = self.agent.iter().flat_map(|agent| &agent.tenants).filter(|id| *id != "*");
        checks.extend(of_agents.map(|id| (bytes_of::<16>(id).is_some(), "agent.tenants", id.clone(), tenant)));
        checks.extend(
            self.tenant.iter().map(|each| (bytes_of::<16>(&each.id).is_some(), "tenant.id", each.id.clone(), tenant)),
        );
        checks
    }

    fn faults_of_numbers(&self) -> Vec<Check> {
        let Self { staging, scrub, repair, answers, store, .. } = self;
        let within = |value: u64, bounds: std::ops::RangeInclusive<u64>, field, reason| {
            (bounds.contains(&value), field, value.to_string(), reason)
        };
        let mut checks = vec![
            within(
                self.relays_per_frame as u64,
                1..=RELAYS_PER_FRAME_MAX as u64,
                "relays_per_frame",
                "it has to be 1 to 8",
            ),
            within(staging.bytes, 256 * MIB..=TIB, "staging.bytes", "it has to be 256 MiB to 1 TiB"),
            within(
                staging.bytes_per_agent,
                MIB..=staging.bytes,
                "staging.bytes_per_agent",
                "it has to be 1 MiB to staging.bytes",
            ),
            within(staging.offers as u64, 1..=4096, "staging.offers", "it has to be 1 to 4096"),
            within(
                staging.offers_per_agent as u64,
                1..=staging.offers as u64,
                "staging.offers_per_agent",
                "it has to be 1 to staging.offers",
            ),
            within(staging.wait_s, 1..=86_400, "staging.wait_s", "it has to be 1 to 86400"),
            within(scrub.every_s, 1..=366 * 86_400, "scrub.every_s", "it has to be 1 second to a year"),
            within(scrub.bytes_per_s, 65_536..=100 * GIB, "scrub.bytes_per_s", "it has to be 65536 or more"),
            within(repair.every_s, 1..=86_400, "repair.every_s", "it has to be 1 to 86400"),
            within(repair.answer_s, 1..=3600, "repair.answer_s", "it has to be 1 to 3600"),
            within(answers.per_s.into(), 1..=1_000_000, "answers.per_s", "it has to be 1 to 1000000"),
            within(
                answers.per_s_in_all.into(),
                answers.per_s.into()..=1_000_000,
                "answers.per_s_in_all",
                "it has to be answers.per_s to 1000000",
            ),
            within(answers.bytes_per_s, MIB..=100 * GIB, "answers.bytes_per_s", "it has to be 1 MiB or more"),
            within(answers.sessions as u64, 16..=65_536, "answers.sessions", "it has to be 16 to 65536"),
            within(store.timeout_s.into(), 1..=600, "store.timeout_s", "it has to be 1 to 600"),
        ];
        let days = [self.policy.retention_days].into_iter().chain(self.tenant.iter().map(|each| each.retention_days));
        checks.extend(days.map(|days| {
            within(days.into(), 1..=36_525, "retention_days", "it has to be 1 to 36525, which is a century")
        }));
        checks
    }
}

impl From<PolicyConfig> for TenantPolicy {
    fn from(config: PolicyConfig) -> Self {
        let PolicyConfig { quota_bytes, retention_days, legal_hold } = config;
        Self { quota_bytes, retention_days, legal_hold }
    }
}

impl From<&TenantConfig> for TenantPolicy {
    fn from(config: &TenantConfig) -> Self {
        let TenantConfig { quota_bytes, retention_days, legal_hold, .. } = *config;
        Self { quota_bytes, retention_days, legal_hold }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn least() -> String {
        format!("chain = \"{}\"\n", "0f".repeat(32))
    }

    #[test]
    fn a_chain_is_enough_and_paths_count_from_the_files_folder() {
        let text = format!("key_file = \"pinner.key\"\n{}", least());
        let config = Config::parse(Path::new("/site/pinner.toml"), &text).unwrap();
        assert_eq!(config.key_file, Path::new("/site/pinner.key"));
        assert_eq!(config.data_dir, Path::new("/var/lib/bpi/pinner"));
        assert_eq!(config.chain_id(), ChainId([0x0f; 32]));
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(Path::new("/elsewhere/x"), &printed).unwrap(), config, "what is printed can be read");
    }

    #[test]
    fn the_example_under_deploy_is_the_default_but_for_members_and_place() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pinner.toml");
        let config = Config::load(&path).unwrap();
        let least = Config::parse(&path, &least()).unwrap();
        let numbers = |config: &Config| {
            let Config { store, staging, scrub, repair, answers, policy, relays_per_frame, .. } = config.clone();
            (store, staging, scrub, repair, answers, policy, relays_per_frame)
        };
        assert_eq!(numbers(&config), numbers(&least));
        assert_eq!((&config.key_file, &config.data_dir, &config.api), (&least.key_file, &least.data_dir, &least.api));
        assert!(
            !config.agent.is_empty()
                && !config.peer.is_empty()
                && !config.validator.is_empty()
                && !config.tenant.is_empty()
        );
    }

    #[test]
    fn policies_of_tenants_and_agents_are_those_that_were_written() {
        let (key, tenant) = ("ab".repeat(32), "cd".repeat(16));
        let text = format!(
            "{}[policy]\nquota_bytes = 7\n[[agent]]\nkey = \"{key}\"\ntenants = [\"{tenant}\"]\n[[tenant]]\nid = \"{tenant}\"\nlegal_hold = true\n",
            least()
        );
        let policy = Config::parse(Path::new("/c"), &text).unwrap().policy([1; 32]);
        assert_eq!(policy.agents[&[0xab; 32]], Tenants::Some([[0xcd; 16]].into()));
        assert!(policy.tenants[&[0xcd; 16]].legal_hold && policy.tenant.quota_bytes == 7);
        assert_eq!(policy.pinners, [[1; 32]]);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let with = |more: &str| format!("{}{more}", least());
        for (text, wanted) in [
            (String::new(), "missing field `chain`"),
            ("chain = \"0F\"".to_owned(), "chain = 0F"),
            (with("burst = 3"), "unknown field `burst`"),
            (with("log_level = \"loud\""), "log_level = loud"),
            (with("api = \"0.0.0.0:1\""), "api = 0.0.0.0:1"),
            (with("relays_per_frame = 9"), "relays_per_frame = 9"),
            (with("[staging]\nbytes = 1"), "staging.bytes = 1"),
            (with("[staging]\noffers = 5"), "staging.offers_per_agent = 64"),
            (with("[scrub]\nbytes_per_s = 1"), "scrub.bytes_per_s = 1"),
            (with("[answers]\nper_s = 3000"), "answers.per_s_in_all = 2000"),
            (with("[policy]\nretention_days = 0"), "retention_days = 0"),
            (with("[[agent]]\nkey = \"ab\"\ntenants = []"), "agent.key = ab"),
            (with("[[peer]]\nkey = \"ab\""), "peer.key = ab"),
            (with("[[tenant]]\nid = \"ab\""), "tenant.id = ab"),
            (with("[[relay]]\nid = \"spiffe://d/relay/r\"\naddress = \"x:1\""), "svid_file"),
        ] {
            let said = Config::parse(Path::new("/c"), &text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{text:?} gave {said:?}");
        }
    }
}
