//! The system call filter: a policy, or the specification's own seccomp section, as a BPF program.
//!
//! The default action is to notify, so whatever a rule does not let pass reaches the supervisor, which refuses and counts it. A rule
//! that cannot be said exactly must not be said at all: then its calls are notified, which is slower and no hole.
//! Always true: the program lets pass exactly what [`Policy::decide`] allows; the tests run it in an interpreter to know.
//! Absent on purpose: loading. That is the executor's, in the container's own process.

mod cache;
mod tenant;

use std::fs::File;
use std::io::{self, Read, Seek};

use bpi_policies::Policy;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};

pub use cache::cached;
pub use tenant::compile_tenant;

/// Most instructions the kernel takes in one program (BPF_MAXINSNS, linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Bytes of one instruction (`struct sock_filter`).
pub const INSTRUCTION_BYTES: usize = 8;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// libseccomp refused a step.
    #[error("libseccomp could not {deed}: {source}")]
    Seccomp {
        /// What was tried.
        deed: String,
        /// What it said.
        source: SeccompError,
    },
    /// The program could not be taken out of libseccomp.
    #[error("could not export the filter through a memory file: {source}")]
    Export {
        /// What the kernel said.
        source: io::Error,
    },
    /// The program is longer than the kernel takes.
    #[error("the filter has {instructions} instructions; the limit is {INSTRUCTIONS_MAX}")]
    TooLong {
        /// Its length.
        instructions: usize,
    },
    /// The cache is not a private directory, or cannot be used.
    #[error("could not {deed} {path}: {source}")]
    Cache {
        /// What was tried.
        deed: &'static str,
        /// On which path.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could have put a filter into the cache.
    #[error("the filter cache {path} must belong to uid {uid} alone; it belongs to uid {owner} and has mode {mode:o}")]
    CacheExposed {
        /// The directory.
        path: std::path::PathBuf,
        /// Who should own it.
        uid: u32,
        /// Who does.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The specification's own filter asks for what would blind or weaken the cage.
    #[error("linux.seccomp: {what} is {value:?}; {limit}")]
    Tenant {
        /// Which part.
        what: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        limit: &'static str,
    },
}

/// Compiles a policy to BPF instructions, 8 bytes each.
///
/// # Errors
/// When libseccomp refuses, or the program is too long for the kernel.
pub fn compile(policy: &Policy) -> Result<Vec<u8>, FilterError> {
    let mut context = context(ScmpAction::Notify, ScmpAction::Notify)?;
    for rule in policy.rules() {
        // By number: Debian 12's libseccomp 2.5.4 has no name for what is newer than Linux 5.17.
        let number = i32::try_from(rule.nr).map_err(|_| too_high(rule.nr))?;
        for term in rule.allow_terms() {
            let comparisons: Vec<_> = term
                .iter()
                .map(|compare| {
                    ScmpArgCompare::new(u32::from(compare.arg), ScmpCompareOp::MaskedEqual(compare.mask), compare.value)
                })
                .collect();
            context
                .add_rule_conditional_exact(ScmpAction::Allow, ScmpSyscall::from_raw_syscall(number), &comparisons)
                .map_err(failed(format!("allow {}", rule.name)))?;
        }
    }
    export(&context)
}

fn too_high(nr: u32) -> FilterError {
    FilterError::Tenant { what: "a system call number", value: nr.to_string(), limit: "the highest is 2^31 - 1" }
}

fn failed(deed: impl Into<String>) -> impl FnOnce(SeccompError) -> FilterError {
    let deed = deed.into();
    |source| FilterError::Seccomp { deed, source }
}

/// An empty filter for this architecture alone, searched as a tree.
fn context(default: ScmpAction, foreign: ScmpAction) -> Result<ScmpFilterContext, FilterError> {
    let mut context = ScmpFilterContext::new(default).map_err(failed("start a filter"))?;
    context.set_act_badarch(foreign).map_err(failed("set the action for foreign entries"))?;
    context.set_ctl_optimize(2).map_err(failed("order the filter as a tree"))?;
    Ok(context)
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, FilterError> {
    let exporting = |source: io::Error| FilterError::Export { source };
    let memory = memfd_create(c"docklock-filter", MFdFlags::MFD_CLOEXEC).map_err(|errno| exporting(errno.into()))?;
    let mut file = File::from(memory);
    context.export_bpf(&file).map_err(failed("export the filter"))?;
    file.rewind().map_err(exporting)?;
    let mut program = Vec::new();
    file.read_to_end(&mut program).map_err(exporting)?;
    let instructions = program.len() / INSTRUCTION_BYTES;
    if instructions > INSTRUCTIONS_MAX {
        return Err(FilterError::TooLong { instructions });
    }
    Ok(program)
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
