//! Rules as data, and the pure function that decides by them.
//!
//! [`syscalls`] is the table of every x86-64 system call and its class, [`condition`] what the arguments of the conditional ones
//! decide, [`profile`] the cage profiles `strict`, `standard`, `service` and a site's own. [`Policy::decide`] answers for one call.
//! Always true: every number has exactly one class, and what is not in the table is refused. A filter built from
//! [`Rule::allow_terms`] lets nothing pass that `decide` refuses.
//! Absent on purpose: the kernel. Nothing here opens a file or makes a system call.

pub mod condition;
pub mod errno;
pub mod profile;
pub mod syscalls;

mod call;
mod rule;

pub use call::{AUDIT_ARCH_X86_64, Call, Class, X32_SYSCALL_BIT};
pub use condition::Compare;
pub use errno::Errno;
pub use profile::{
    Binds, Budget, CgroupFence, CpuFeatures, Demand, DeviceRule, ExecRule, Fences, HookRule, LandlockDemand, Limits,
    Namespace, Namespaces, Network, Outcome, Policy, PolicyError, Rlimit, Schedule, Spin,
};
pub use rule::Rule;
