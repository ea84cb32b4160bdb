//! One system call as the kernel shows it to a filter, and what may become of it.

use crate::Errno;

/// `AUDIT_ARCH_X86_64` of linux/audit.h: the only entry a caged program may use.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Marks a call through the x32 table (asm/unistd.h).
pub const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// A system call: `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// `AUDIT_ARCH_*` of the entry that was used.
    pub arch: u32,
    /// Number in that entry's table.
    pub nr: i32,
    /// The six argument registers, as they are.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Runs at native speed, unseen.
    Allow,
    /// Is refused with this errno, and counted.
    Deny(Errno),
    /// The engine answers or orders it. Only under [`crate::Schedule::Turns`]: without turns there is nothing to order, and it runs unseen.
    Virtual,
}

impl Class {
    /// The class a table's word stands for: `allow`, `virtual`, or the errno that refuses.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "allow" => Some(Self::Allow),
            "virtual" => Some(Self::Virtual),
            errno => Errno::from_name(errno).map(Self::Deny),
        }
    }
}
