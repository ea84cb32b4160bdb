//! AppArmor: a profile made from a policy, and the loading of it.
//!
//! The name holds the digests of policy and rules, so a name never changes its meaning and loading twice is harmless. A profile allows by
//! default inside the mount namespace and denies what a container must not reach whatever its capabilities: the second fence behind
//! seccomp, masked paths and the capability set (apparmor.d(5)). It speaks only where those have failed: a read that is masked elsewhere
//! must not become an error here, or a program would see the difference between two hosts.
//! Absent on purpose: unloading. A profile may be in use by another container of the same policy.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpi_policies::{Network, Policy};
use bpi_protocol::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

/// Hexadecimal digits of the policy's digest in a profile's name: 64 bits, and the name stays readable in `ps -Z`.
const POLICY_DIGITS: usize = 16;

/// Hexadecimal digits of the rules' own digest: another release of docklock may write other rules for the same policy.
const RULES_DIGITS: usize = 8;

/// Most bytes of the parser's complaint that go into an error.
const COMPLAINT_BYTES_MAX: usize = 1_024;

/// A profile by its name and text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppArmorProfile {
    /// `docklock-<policy>-<digest of the policy>-<digest of the rules>`.
    pub name: String,
    /// What apparmor_parser(8) reads.
    pub text: String,
    /// The parser on this host.
    pub parser: PathBuf,
}

/// Why a profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AppArmorError {
    /// The parser could not be run.
    #[error("could not run {parser} for profile {profile}: {source}")]
    Run {
        /// The program.
        parser: PathBuf,
        /// The profile.
        profile: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The parser or the kernel refused the profile.
    #[error("{parser} refused profile {profile} ({status}): {complaint}")]
    Refused {
        /// The program.
        parser: PathBuf,
        /// The profile.
        profile: String,
        /// How it ended.
        status: String,
        /// What it said, shortened.
        complaint: String,
    },
}

impl AppArmorProfile {
    /// The profile that enforces `policy`, to be loaded by `parser`.
    pub fn of(policy: &Policy, parser: &Path) -> Self {
        let digest = policy.digest().to_string();
        let rules = Sha256Digest::of(text("docklock", policy).as_bytes()).to_string();
        let name = format!("docklock-{}-{}-{}", policy.name(), &digest[..POLICY_DIGITS], &rules[..RULES_DIGITS]);
        let text = text(&name, policy);
        Self { name, text, parser: parser.to_owned() }
    }
}

/// Loads the profile into the kernel unless the very same is there already.
///
/// # Errors
/// When the parser cannot be run or refuses.
pub fn load(profile: &AppArmorProfile) -> Result<(), AppArmorError> {
    if is_loaded(Path::new("/sys/kernel/security/apparmor/profiles"), &profile.name) {
        return Ok(());
    }
    // No cache: a file beside the kernel's own copy could only be stale. --replace makes two shims at once harmless.
    parse(profile, &["--quiet", "--skip-cache", "--replace"])
}

/// Lines of that file are `name (mode)`.
fn is_loaded(profiles: &Path, name: &str) -> bool {
    std::fs::read_to_string(profiles)
        .is_ok_and(|text| text.lines().any(|line| line.strip_suffix(" (enforce)") == Some(name)))
}

fn parse(profile: &AppArmorProfile, options: &[&str]) -> Result<(), AppArmorError> {
    let failed = |source| AppArmorError::Run { parser: profile.parser.clone(), profile: profile.name.clone(), source };
    let mut child = Command::new(&profile.parser)
        .args(options)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(profile.text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let mut complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        complaint.truncate(complaint.floor_char_boundary(COMPLAINT_BYTES_MAX));
        let (parser, profile) = (profile.parser.clone(), profile.name.clone());
        return Err(AppArmorError::Refused { parser, profile, status: output.status.to_string(), complaint });
    }
    written.map_err(failed)
}

fn text(name: &str, policy: &Policy) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail; the macro's result is the only way to say so without a second buffer.
    let written = write_profile(&mut text, name, policy);
    debug_assert!(written.is_ok());
    text
}

fn write_profile(text: &mut String, name: &str, policy: &Policy) -> std::fmt::Result {
    let profile = policy.profile();
    writeln!(text, "#include <tunables/global>\n")?;
    writeln!(text, "profile {name} flags=(attach_disconnected,mediate_deleted) {{")?;
    writeln!(text, "  file,\n  unix,\n  dbus,")?;
    // Signals from outside must arrive: the shim kills, and so does the kubelet's exec of a probe.
    writeln!(text, "  signal (receive) peer=unconfined,\n  signal (send, receive) peer={name},")?;
    writeln!(text, "  ptrace (read, readby) peer={name},\n")?;
    for capability in &profile.capabilities {
        writeln!(text, "  capability {},", capability.trim_start_matches("CAP_").to_ascii_lowercase())?;
    }
    writeln!(text, "\n  deny mount,\n  deny remount,\n  deny umount,\n  deny pivot_root,\n  deny ptrace (trace),")?;
    network(text, profile.network)?;
    writeln!(text, "\n  # The kernel's own knobs, whatever is mounted where.")?;
    for path in [
        "/proc/sys/**",
        "/proc/sysrq-trigger",
        "/proc/bus/**",
        "/proc/irq/**",
        "/proc/fs/**",
        "/proc/mtrr",
        "/proc/acpi/**",
    ] {
        writeln!(text, "  deny {path} wklx,")?;
    }
    writeln!(
        text,
        "  deny @{{PROC}}/*/mem w,\n  deny /sys/[^f]*/** wklx,\n  deny /sys/f[^s]*/** wklx,\n  deny /sys/fs/[^c]*/** wklx,"
    )?;
    writeln!(text, "  deny /sys/fs/c[^g]*/** wklx,\n  deny /sys/fs/cg[^r]*/** wklx,")?;
    for path in &profile.readonly_paths {
        writeln!(text, "  deny {path} wkl,")?;
    }
    writeln!(text, "}}")
}

fn network(text: &mut String, network: Network) -> std::fmt::Result {
    writeln!(text, "\n  network unix,\n  network netlink raw,\n  network netlink dgram,")?;
    if network != Network::None {
        writeln!(
            text,
            "  network inet stream,\n  network inet dgram,\n  network inet6 stream,\n  network inet6 dgram,"
        )?;
    }
    // Not `deny network raw`: a deny wins over every allow, and route netlink is raw.
    writeln!(text, "  deny network inet raw,\n  deny network inet6 raw,\n  deny network packet,")
}

#[cfg(test)]
mod tests;
