//! A host of its own for a test: configuration, key, spool and state in one temporary folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::{Fence, Intent, Receipt};
use bpi_protocol::run::{CageRef, Params, StreamDigest};
use docklock::engine::report::Report;
use docklock::seal::{self, Ending, Facts, RuntimeIdentity};
use docklock::signer::FileKey;
use docklock::spool::{Appended, Boundary, OpenFacts, ProcessRef, Spool};

pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir };
        fs::create_dir(host.path("etc")).unwrap();
        fs::create_dir(host.path("profiles")).unwrap();
        let line = |field: &str, path: &str| format!("{field} = {:?}\n", host.path(path));
        let text = [
            line("key_file", "key"),
            line("state_dir", "state"),
            line("spool_dir", "spool"),
            line("stage_dir", "stage"),
            line("profiles_dir", "profiles"),
        ];
        host.write("docklock.toml", &text.concat());
        FileKey::generate(&host.path("key")).unwrap();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docklock"));
        command.args(arguments).env("DOCKLOCK_CONFIG", self.path("docklock.toml")).env_remove("RUST_BACKTRACE");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The public key of this host.
    pub fn trust(&self) -> String {
        self.path("key.pub.pem").to_str().unwrap().to_owned()
    }

    fn signer(&self) -> FileKey {
        FileKey::load(&self.path("key")).unwrap()
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.path("spool"), &Boundary::local()).unwrap()
    }

    /// Chains an intent that this test process owns.
    pub fn intend(&self, id: &str) -> Appended {
        let signer = self.signer();
        let host = seal::host("spiffe://bpi.local/host/test", &signer).unwrap();
        let owner = ProcessRef::of(std::process::id()).unwrap();
        let facts =
            OpenFacts { container_id: id.to_owned(), owner, state_dir: self.path("state"), cgroups: Vec::new() };
        let intended_on = docklock::clock::now();
        self.spool()
            .intend(&signer, facts, |chain| {
                let intent = Intent { container_id: id.to_owned(), cage: cage(), intended_on, host, chain };
                seal::intent_statement(&intent, config())
            })
            .unwrap()
    }

    /// Chains an intent and its receipt.
    pub fn seal(&self, id: &str) -> Appended {
        let intent = self.intend(id);
        let signer = self.signer();
        let host = seal::host("spiffe://bpi.local/host/test", &signer).unwrap();
        self.spool()
            .close(&signer, &intent.digest, |chain| seal::receipt_statement(&seal::receipt(&facts(id), chain, host)?))
            .unwrap()
    }

    /// Chains the receipt of that intent, and says where.
    pub fn close(&self, id: &str, intent: &Appended) -> u64 {
        let signer = self.signer();
        let host = seal::host("spiffe://bpi.local/host/test", &signer).unwrap();
        self.spool()
            .close(&signer, &intent.digest, |chain| seal::receipt_statement(&seal::receipt(&facts(id), chain, host)?))
            .unwrap()
            .seq
    }

    /// Chains an intent and this receipt of it, but for its place in the chain.
    pub fn seal_receipt(&self, id: &str, receipt: &Receipt) -> Appended {
        let intent = self.intend(id);
        let mut receipt = receipt.clone();
        receipt.observed.container_id = id.to_owned();
        self.spool()
            .close(&self.signer(), &intent.digest, |chain| seal::receipt_statement(&Receipt { chain, ..receipt }))
            .unwrap()
    }

    /// A folder with the evidence of a run of container `id`.
    pub fn evidence(&self, id: &str) -> String {
        self.seal(id);
        let dir = self.path(&format!("evidence-{id}"));
        let output = self.run(&["receipts", "export", id, dir.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        dir.to_str().unwrap().to_owned()
    }

    /// A bundle around busybox with these arguments.
    pub fn bundle(&self, args: &[&str]) -> PathBuf {
        self.bundle_with(args, false)
    }

    /// As [`Host::bundle`], for a process that wants a terminal.
    pub fn terminal_bundle(&self, args: &[&str]) -> PathBuf {
        self.bundle_with(args, true)
    }

    fn bundle_with(&self, args: &[&str], terminal: bool) -> PathBuf {
        let bundle = self.path("bundle");
        fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
        if Path::new("/bin/busybox").exists() {
            fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).unwrap();
        }
        let mut spec = serde_json::to_value(oci_spec::runtime::Spec::default()).unwrap();
        spec["process"]["args"] = args.into();
        spec["process"]["terminal"] = terminal.into();
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }
}

fn cage() -> CageRef {
    CageRef { profile: "standard".to_owned(), digest: Sha256Digest::of(b"cage") }
}

fn config() -> Sha256Digest {
    Sha256Digest::of(b"config")
}

fn facts(id: &str) -> Facts {
    let nothing = StreamDigest { digest: Sha256Digest::EMPTY, bytes: 0 };
    Facts {
        container_id: id.to_owned(),
        image: None,
        config: config(),
        cage: cage(),
        argv: Sha256Digest::of(b"[\"true\"]"),
        env: Sha256Digest::of(b"[]"),
        inputs: Vec::new(),
        params: Params { seed: None, epoch: None, schedule: "host".to_owned() },
        limits: Default::default(),
        ending: Ending::Exited(0),
        stdout: nothing.clone(),
        stderr: nothing,
        outputs: docklock::outputs::nothing(),
        report: Report { schedule: "host".to_owned(), ..Report::default() },
        sources: Vec::new(),
        fences: vec![Fence { name: "seccomp".to_owned(), status: "in-force".to_owned(), reason: None }],
        execs: Vec::new(),
        started: SystemTime::now(),
        finished: SystemTime::now(),
        kernel: "6.1.0".to_owned(),
        host_vector: None,
        cpu_usec: None,
        memory_peak_bytes: None,
        output_undelivered: false,
        runtime: RuntimeIdentity { version: seal::VERSION.to_owned(), digest: Sha256Digest::EMPTY },
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One sentence on standard error, with this status, this code, and these words.
pub fn assert_fails(output: &Output, status: i32, code: &str, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with(&format!("docklock: {code}: ")), "{code}: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
}
