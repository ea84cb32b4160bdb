//! `bpi-wire`: hands IP packets from one namespace to another.
//!
//! The first line of its input is a [`Setup`], each other one [`Rules`]; it answers each with a line when it is in force, and at the end of its
//! input says its counts. One thread: it sleeps until a packet comes, one is due, or a line is there.
//!
//! The one `unsafe` block takes over descriptors by number.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use bpi_wire::wire::{PACKET_BYTES_MAX, Port, Rules, Setup, Wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Packets that are read from one namespace before the next has its turn.
const TURN: usize = 64;
/// Longest line of the input.
const LINE_BYTES_MAX: usize = 64 * 1024;

fn main() -> anyhow::Result<()> {
    let mut input =
        Lines { file: File::from(std::io::stdin().as_fd().try_clone_to_owned()?), bytes: Vec::new(), ended: false };
    let first = loop {
        if let Some(line) = input.next() {
            break line;
        }
        if input.ended {
            bail!("the input ends before a setup");
        }
        input.fill()?;
    };
    let setup: Setup = serde_json::from_slice(&first).context("the setup is refused")?;
    let mut wire = Wire::new(&setup)?;
    let mut devices = adopt(&setup.ports)?;
    say("{\"joined\":true}")?;
    run(&mut wire, &mut devices, &mut input)?;
    say(&serde_json::to_string(&wire.counts)?)
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Takes over the TUN devices that were passed.
fn adopt(ports: &[Port]) -> anyhow::Result<Vec<File>> {
    let mut devices: Vec<File> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for Port { name, fd, .. } in ports {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).with_context(|| format!("port {name}: {fd}"))?;
        if *fd <= 2 || !known.insert(*fd) || link != Path::new("/dev/net/tun") {
            bail!("port {name}: descriptor {fd} is {}, and has to be a TUN device of its own", link.display());
        }
        // SAFETY: the descriptor is open and a TUN device, as its link in /proc says; it was passed for this program to own: nothing here opens TUN
        // devices, and no number is taken twice, so nobody else closes it.
        let device = unsafe { File::from_raw_fd(*fd) };
        let flags = fcntl_getfl(&device)?;
        fcntl_setfl(&device, flags | OFlags::NONBLOCK)?;
        devices.push(device);
    }
    Ok(devices)
}

fn run(wire: &mut Wire, devices: &mut [File], input: &mut Lines) -> anyhow::Result<()> {
    let began = Instant::now();
    let now_us = || began.elapsed().as_micros() as u64;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut ready = Vec::new();
    loop {
        let left_us = wire.next_us().map(|due_us| due_us.saturating_sub(now_us()));
        let left =
            left_us.map(|us| Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1000) as i64 });
        {
            let watched = devices.iter().map(|device| PollFd::new(device, PollFlags::IN));
            let mut watched: Vec<PollFd<'_>> = watched.chain([PollFd::new(&input.file, PollFlags::IN)]).collect();
            match poll(&mut watched, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => bail!("poll: {error}"),
            }
            ready.clear();
            ready.extend(watched.iter().map(|watched| !watched.revents().is_empty()));
        }
        for (from, device) in devices.iter_mut().enumerate() {
            if !ready[from] {
                continue;
            }
            let now_us = now_us();
            for _ in 0..TURN {
                // A namespace that is gone has nothing more to say, and neither has one that has said everything.
                let Ok(length) = device.read(&mut packet) else { break };
                wire.take(now_us, from, &packet[..length]);
            }
        }
        while let Some(due) = wire.due(now_us()) {
            let taken = devices[due.to].write(&due.packet).is_ok();
            wire.give_back(due.packet, taken);
        }
        if ready[devices.len()] {
            input.fill()?;
            while let Some(line) = input.next() {
                let rules: Rules = serde_json::from_slice(&line).context("rules are refused")?;
                wire.rule(rules);
                say("{\"ruled\":true}")?;
            }
            if input.ended {
                return Ok(());
            }
        }
    }
}

/// Lines of the input, as they come.
struct Lines {
    file: File,
    bytes: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// Reads what is there; waits when nothing is.
    fn fill(&mut self) -> anyhow::Result<()> {
        let mut part = [0; 4096];
        let length = self.file.read(&mut part)?;
        self.ended = length == 0;
        self.bytes.extend_from_slice(&part[..length]);
        if self.bytes.len() > LINE_BYTES_MAX {
            bail!("a line is longer than {LINE_BYTES_MAX} bytes");
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let rest = self.bytes.split_off(end + 1);
        Some(std::mem::replace(&mut self.bytes, rest))
    }
}
