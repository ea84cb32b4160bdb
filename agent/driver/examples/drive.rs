//! Drives a container by hand.
//!
//!     drive --socket /run/containerd/containerd.sock -n demo sha256:… run-1 /bin/sh -c 'echo hello'
//!     drive --socket … --list          what runs under DockLock
//!     drive --socket … --events        what happens, until it is ended

use std::path::PathBuf;

use anyhow::{Context, bail};
use bpi_driver::{Driver, Input, Order};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    socket: PathBuf,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Snapshotter.
    #[arg(long, default_value = "overlayfs")]
    snapshotter: String,
    /// Where output goes: two files, stdout and stderr.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// HOST:INSIDE, read-only.
    #[arg(long)]
    input: Vec<String>,
    /// NAME=VALUE.
    #[arg(long)]
    env: Vec<String>,
    /// The cage's profile.
    #[arg(long)]
    profile: Option<String>,
    /// Lists containers.
    #[arg(long)]
    list: bool,
    /// Tells events.
    #[arg(long)]
    events: bool,
    /// Removes what a run left.
    #[arg(long)]
    remove: Option<String>,
    /// Waits for a run of a process before, and removes it.
    #[arg(long)]
    finish: Option<String>,
    /// Starts, and goes away.
    #[arg(long)]
    leave: bool,
    /// The image.
    image: Option<String>,
    /// The container's id.
    id: Option<String>,
    /// What runs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let driver = Driver::connect(&arguments.socket, &arguments.snapshotter).await?;
    if arguments.list {
        for container in driver.containers().await? {
            println!("{container:?}");
        }
        return Ok(());
    }
    if arguments.events {
        let mut events = driver.events().await?;
        eprintln!("listening");
        while let Some(event) = events.next().await? {
            println!("{event:?}");
        }
        bail!("containerd ended the stream");
    }
    if let Some(id) = arguments.remove {
        return Ok(driver.remove(&arguments.namespace, &id).await?);
    }
    let mut told = |progress| println!("{progress:?}");
    if let Some(id) = arguments.finish {
        println!("{:?}", driver.finish(&arguments.namespace, &id, &mut told).await?);
        return Ok(());
    }
    let folder = std::path::absolute(&arguments.folder)?;
    let inputs = arguments.input.iter().map(|word| {
        let (host, inside) = word.split_once(':').context("an input is HOST:INSIDE")?;
        Ok(Input { host: host.into(), inside: inside.into() })
    });
    let order = Order {
        id: arguments.id.context("an id is missing")?,
        image: arguments.image.context("an image is missing")?,
        argv: arguments.argv,
        env: arguments.env,
        inputs: inputs.collect::<anyhow::Result<_>>()?,
        profile: arguments.profile,
        outputs: Vec::new(),
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    };
    if arguments.leave {
        println!("left {}", driver.start(&arguments.namespace, &order, &mut told).await?.id());
        return Ok(());
    }
    println!("{:?}", driver.run(&arguments.namespace, &order, &mut told).await?);
    Ok(())
}
