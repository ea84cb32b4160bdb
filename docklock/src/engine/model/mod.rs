//! What the kernel would have answered, as pure functions: the parts of the engine that decide and touch nothing.
//!
//! Time, randomness and the state of the guest come in as arguments, answers go out as values; so each module is tested by stepping it.
//! Structures of the x86-64 kernel ABI are read and written by offset on byte arrays, and every offset is checked.
//!
//! Absent on purpose: input and output, the host's clock, the host's entropy, `unsafe`.

pub mod clock;
pub mod folder;
pub mod futex;
pub mod instructions;
pub mod metadata;
pub mod place;
pub mod processor;
pub mod procfs;
pub mod random;
pub mod room;
pub mod stack;
pub mod timers;
