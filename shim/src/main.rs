//! `containerd-shim-bpi-docklock`: containerd's task API in front of docklock.
//!
//! containerd calls it as `start` (answers an address), `delete` (cleans up after a shim that is gone), `-info` and `-v`; `start` calls it
//! without an action to serve. Here are the arguments and the dispatch; each action has its own file. No `unsafe`.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

mod arguments;
mod bootstrap;
mod bundle;
mod cleanup;
mod errors;
mod events;
mod image;
mod log;
mod metrics;
mod options;
mod process;
mod rootfs;
mod server;
mod service;
mod stdio;
mod tasks;
mod wire;

use arguments::{Action, Arguments};

/// The name containerd makes of the runtime's.
const BINARY: &str = "containerd-shim-bpi-docklock";
/// The runtime's name, as clients give it.
const RUNTIME: &str = "io.bpi.docklock";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd puts its own words right behind ours; a person at a terminal wants the line ended.
            let end = if std::io::stderr().is_terminal() { "\n" } else { "" };
            eprint!("{BINARY}: {error}{end}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    match arguments.action {
        Action::Serve => {
            let served = server::serve(&arguments);
            if let Err(error) = &served {
                // Nobody reads a serving shim's standard error.
                tracing::error!(%error, "the shim ends");
            }
            Ok(served?)
        }
        Action::Start => print(bootstrap::start(&arguments)?.as_bytes()),
        Action::Delete => print(&cleanup::delete(&arguments)?.write_to_bytes()?),
        Action::Info => print(&info().write_to_bytes()?),
        Action::Version => print(format!("{BINARY} {}\n", env!("CARGO_PKG_VERSION")).as_bytes()),
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    written.map_err(|error| anyhow::anyhow!("could not write to standard output: {error}"))
}

fn info() -> RuntimeInfo {
    RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..RuntimeVersion::default() })
            .into(),
        ..RuntimeInfo::default()
    }
}
