//! One containerd namespace for one test: its containers, and the chain of receipts of the same name.

use std::process::Command;
use std::time::Duration;

use crate::command::{DEADLINE, Finished, run};
use crate::daemon::Daemon;
use crate::image::REFERENCE;
use crate::leak::{Inventory, cgroups_named};
use crate::records::{Record, receipt_of};
use crate::{Failure, ensure, eventually};

/// A namespace with the test image.
pub struct Namespace<'daemon> {
    /// The containerd it is of.
    pub daemon: &'daemon Daemon,
    /// Its name, and the boundary of its receipts.
    pub name: String,
    before: Inventory,
}

impl<'daemon> Namespace<'daemon> {
    pub(crate) fn new(daemon: &'daemon Daemon, name: &str) -> Result<Self, Failure> {
        let name = format!("{name}-{}", if daemon.version == crate::daemon::Version::Debian { "1" } else { "2" });
        let namespace = Self { before: Inventory::take(&name, &[]), daemon, name };
        namespace.import()?;
        Ok(namespace)
    }

    fn import(&self) -> Result<(), Failure> {
        let archive = self.daemon.image.archive.to_string_lossy();
        self.ctr(&["images", "import", &archive])?.ok().map(|_| ())
    }

    /// `ctr -n NAME …` as a command not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend_from_slice(words);
        self.daemon.ctr(&all)
    }

    /// Runs `ctr -n NAME …` to its end.
    ///
    /// # Errors
    /// When it takes longer than a minute.
    pub fn ctr(&self, words: &[&str]) -> Result<Finished, Failure> {
        run(self.command(words), b"", DEADLINE)
    }

    /// `ctr run --rm FLAGS IMAGE ID ARGV…` as a command not yet started.
    pub fn run_command(&self, id: &str, flags: &[&str], argv: &[&str]) -> Command {
        let mut words = vec!["run", "--runtime", self.daemon.runtime.as_str()];
        if !flags.contains(&"--detach") {
            words.push("--rm");
        }
        words.extend_from_slice(flags);
        words.extend_from_slice(&[REFERENCE, id]);
        words.extend_from_slice(argv);
        self.command(&words)
    }

    /// Runs a container to its end.
    ///
    /// # Errors
    /// When it takes longer than a minute.
    pub fn run(&self, id: &str, flags: &[&str], argv: &[&str]) -> Result<Finished, Failure> {
        run(self.run_command(id, flags, argv), b"", DEADLINE)
    }

    /// Starts a container that stays, and gives its init's process id.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, id: &str, flags: &[&str], argv: &[&str]) -> Result<u32, Failure> {
        let mut all = vec!["--detach"];
        all.extend_from_slice(flags);
        self.run(id, &all, argv)?.ok()?;
        self.pid(id)
    }

    /// Process id that `ctr task ls` gives for a container.
    ///
    /// # Errors
    /// When the task is not listed.
    pub fn pid(&self, id: &str) -> Result<u32, Failure> {
        let listed = self.ctr(&["tasks", "list"])?.ok()?.text();
        let row = listed.lines().find(|line| line.split_whitespace().next() == Some(id));
        let pid = row.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse().ok());
        pid.ok_or_else(|| format!("ctr tasks list does not name {id}: {listed}").into())
    }

    /// State that `ctr task ls` gives for a container, such as RUNNING.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn state(&self, id: &str) -> Result<Option<String>, Failure> {
        let listed = self.ctr(&["tasks", "list"])?.ok()?.text();
        let row = listed.lines().find(|line| line.split_whitespace().next() == Some(id));
        Ok(row.and_then(|line| line.split_whitespace().nth(2)).map(str::to_owned))
    }

    /// Waits until a container's task has this state.
    ///
    /// # Errors
    /// When it has not after 20 s.
    pub fn reaches(&self, id: &str, state: &str) -> Result<(), Failure> {
        eventually(&format!("{id} is {state}"), Duration::from_secs(20), || {
            self.state(id).ok().flatten().filter(|now| now == state)
        })
        .map(|_| ())
    }

    /// Kills a container that stays, and removes it and its task.
    ///
    /// # Errors
    /// When ctr fails at one of these.
    pub fn remove(&self, id: &str) -> Result<(), Failure> {
        self.ctr(&["tasks", "delete", "--force", id])?.ok()?;
        self.ctr(&["containers", "delete", id])?.ok().map(|_| ())
    }

    /// The receipt of a container; it must be there already.
    ///
    /// # Errors
    /// When there is none.
    pub fn receipt(&self, id: &str) -> Result<Record, Failure> {
        receipt_of(&self.daemon.spool, &self.name, id)
    }

    /// Nothing with this namespace's name is left: no process, no cgroup, no mount. The namespace's own cgroup folder, into which
    /// containerd puts those of its containers, stays with every runtime and is no leak.
    ///
    /// # Errors
    /// Names what is left after 10 s.
    pub fn leaves_nothing(&self) -> Result<(), Failure> {
        let clean = || Inventory::take(&self.name, &[]).beyond(&self.before);
        if eventually("clean", Duration::from_secs(10), || clean().is_empty().then_some(())).is_err() {
            let left = clean();
            ensure(left.is_empty(), format!("left behind: {left:?}"))?;
        }
        Ok(())
    }
}

impl Drop for Namespace<'_> {
    /// Takes the namespace's empty cgroup folders away, so that the host is as it was.
    fn drop(&mut self) {
        for folder in cgroups_named(&self.name) {
            if let Err(error) = std::fs::remove_dir(&folder) {
                eprintln!("cannot remove {}: {error}", folder.display());
            }
        }
    }
}
