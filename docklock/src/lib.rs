//! Runs an ordinary OCI container in a cage and seals what happened into a signed receipt.
//!
//! The path of one run is the order of the modules: [`cage`] plans it (pure), [`spool`] makes the intent durable, [`launch`]
//! starts it, [`supervisor`] answers its intercepted calls, [`streams`] and [`outputs`] measure what it produced, [`seal`] turns
//! the facts into a receipt, and [`spool`] keeps that. [`task`] holds the thread through all of them.
//!
//! Absent on purpose: containerd. The shim and the command line are two callers of the same [`task::Engine`].
//! `unsafe` lives in [`kernel`] alone.

#![deny(unsafe_code)]

pub mod apparmor;
pub mod branches;
pub mod cage;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod engine;
pub mod filter;
pub mod host;
pub mod inputs;
#[allow(unsafe_code)] // the one place: each block names the precondition it relies on
pub mod kernel;
pub mod launch;
pub mod outputs;
pub mod rerun;
pub mod seal;
pub mod signer;
pub mod spans;
pub mod spool;
pub mod streams;
pub mod supervisor;
pub mod task;
