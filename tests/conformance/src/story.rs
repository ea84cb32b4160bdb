//! A host, its key, and the records it writes.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::key::PublicKey;
use bpi_protocol::receipt::{Abort, Assurance, ChainLink, ExecRecord, Fence, Host, Intent, Observed, Receipt, Source};
use bpi_protocol::run::{
    CageRef, CallCount, ConfigRef, Image, Input, Outputs, Params, RUN_TYPE, Run, RunResult, RuntimeRef, StreamDigest,
};
use ed25519_dalek::{Signer as _, SigningKey};

/// A host that signs.
pub struct Signer {
    key: SigningKey,
    id: String,
}

impl Signer {
    /// A host called `name` whose key follows from its name.
    pub fn new(name: &str) -> Self {
        let seed = Sha256Digest::of(name.as_bytes());
        Self { key: SigningKey::from_bytes(seed.as_bytes()), id: format!("spiffe://bpi.example/host/{name}") }
    }

    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_verifying_key(self.key.verifying_key())
    }

    /// The 32 bytes that its key is made of (RFC 8032, 5.1.5): no secret.
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Signs bytes as they are.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// How it names itself in a record.
    pub fn host(&self) -> Host {
        Host {
            id: self.id.clone(),
            keyid: self.public_key().keyid(),
            boot_id: "6f1d2c3b-4a59-4687-9d0e-1f2a3b4c5d6e".to_owned(),
        }
    }

    /// Seals a record as the runtime does: only a sound one.
    ///
    /// # Panics
    ///
    /// When the record breaks a rule.
    pub fn seal(&self, record: &Record) -> Envelope {
        let sealed = record.seal(config_digest(), |pae| Ok::<_, Infallible>(self.sign(pae)));
        sealed.expect("the records of this story keep the rules")
    }

    /// Signs any payload, sound or not.
    pub fn seal_bytes(&self, payload: Vec<u8>) -> Envelope {
        let signed = Envelope::sign(payload, &self.public_key().keyid(), |pae| Ok::<_, Infallible>(self.sign(pae)));
        signed.unwrap_or_else(|never| match never {})
    }
}

fn digest(of: &str) -> Sha256Digest {
    Sha256Digest::of(of.as_bytes())
}

/// Digest of the caged configuration that every intent of the story announces.
pub fn config_digest() -> Sha256Digest {
    digest("config.json")
}

fn cage() -> CageRef {
    CageRef { profile: "standard".to_owned(), digest: digest("standard") }
}

/// The deterministic core of a usual run.
pub fn run() -> Run {
    let input = |name: &str| Input { name: name.to_owned(), digest: digest(name) };
    let denied =
        |syscall: &str, count| CallCount { syscall: syscall.to_owned(), errno: Some("EPERM".to_owned()), count };
    Run {
        type_: RUN_TYPE.to_owned(),
        image: Some(Image {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: digest("manifest"),
        }),
        platform: "linux/amd64".to_owned(),
        config: ConfigRef { digest: config_digest() },
        cage: cage(),
        runtime: RuntimeRef { name: "docklock".to_owned(), abi: 1 },
        inputs: vec![input("/data/in.csv"), input("argv"), input("env"), input("stdin")],
        params: Params { seed: None, epoch: None, schedule: "host".to_owned() },
        limits: BTreeMap::from([("memoryBytes".to_owned(), 268_435_456), ("pids".to_owned(), 128)]),
        result: RunResult {
            exit_code: Some(0),
            signal: None,
            stdout: StreamDigest { digest: digest("hello\n"), bytes: 6 },
            stderr: StreamDigest { digest: Sha256Digest::EMPTY, bytes: 0 },
            outputs: Outputs { scope: "layer".to_owned(), digest: digest("outputs"), entries: 3 },
        },
        trace: None,
        denied: vec![denied("mount", 2), denied("ptrace", 1)],
        virtualised: Vec::new(),
    }
}

fn assurance() -> Assurance {
    let source =
        |(name, status): (&str, &str)| Source { name: name.to_owned(), status: status.to_owned(), reason: None };
    let fence = |name: &str, reason: Option<&str>| Fence {
        name: name.to_owned(),
        status: if reason.is_some() { "absent" } else { "in-force" }.to_owned(),
        reason: reason.map(str::to_owned),
    };
    Assurance {
        level: "D0".to_owned(),
        sources: [
            ("address-space", "controlled"),
            ("clock", "uncontrolled"),
            ("entropy", "uncontrolled"),
            ("hostname", "controlled"),
            ("network", "controlled"),
            ("scheduling", "uncontrolled"),
        ]
        .map(source)
        .to_vec(),
        fences: vec![
            fence("apparmor", Some("the kernel has no AppArmor")),
            fence("cgroup-memory", None),
            fence("cgroup-pids", None),
            fence("landlock", None),
            fence("seccomp", None),
        ],
        execs: Vec::new(),
        schedule: None,
        host_vector: None,
        escapes: Vec::new(),
        counters: BTreeMap::new(),
    }
}

fn observed(container_id: &str) -> Observed {
    Observed {
        container_id: container_id.to_owned(),
        runtime_version: "0.1.0 (0123456789ab)".to_owned(),
        runtime_digest: digest("docklock"),
        started_on: "2026-01-02T03:04:05.678901Z".to_owned(),
        finished_on: "2026-01-02T03:04:06.789012Z".to_owned(),
        kernel: "6.1.0-37-amd64".to_owned(),
        cpu_usec: Some(81_233),
        memory_peak_bytes: Some(10_485_760),
        output_undelivered: false,
    }
}

/// A host at work on one chain.
pub struct Chain<'a> {
    signer: &'a Signer,
    boundary: String,
    /// Everything written so far.
    pub records: Vec<Envelope>,
    first_seq: u64,
}

impl<'a> Chain<'a> {
    /// A chain whose next record is `first_seq`; if that is not 0, an earlier record is made up for it to follow.
    pub fn new(signer: &'a Signer, boundary: &str, first_seq: u64) -> Self {
        Self { signer, boundary: boundary.to_owned(), records: Vec::new(), first_seq }
    }

    /// Link for the next record.
    pub fn link(&self, started_ref: Option<Sha256Digest>) -> ChainLink {
        let seq = self.first_seq + self.records.len() as u64;
        let made_up = (seq > 0).then(|| digest("the record before"));
        let prev = self.records.last().map(Envelope::pae_digest).or(made_up);
        ChainLink { boundary: self.boundary.clone(), seq, prev, started_ref }
    }

    /// Writes a record and returns its name.
    pub fn push(&mut self, record: &Record) -> Sha256Digest {
        self.push_sealed(self.signer.seal(record))
    }

    /// Adds a record that is sealed already.
    pub fn push_sealed(&mut self, envelope: Envelope) -> Sha256Digest {
        let name = envelope.pae_digest();
        self.records.push(envelope);
        name
    }

    /// The next intent, not yet written.
    pub fn intent(&self, container_id: &str) -> Intent {
        Intent {
            container_id: container_id.to_owned(),
            cage: cage(),
            intended_on: "2026-01-02T03:04:05Z".to_owned(),
            host: self.signer.host(),
            chain: self.link(None),
        }
    }

    /// The next receipt, not yet written.
    pub fn receipt(&self, container_id: &str, intent: Sha256Digest) -> Receipt {
        Receipt {
            run: run(),
            assurance: assurance(),
            observed: observed(container_id),
            host: self.signer.host(),
            chain: self.link(Some(intent)),
        }
    }

    /// The next abort, not yet written.
    pub fn abort(&self, container_id: &str, intent: Sha256Digest) -> Abort {
        Abort {
            container_id: container_id.to_owned(),
            reason: "the shim that ran it ended before the run was sealed".to_owned(),
            aborted_on: "2026-01-02T03:04:06Z".to_owned(),
            host: self.signer.host(),
            chain: self.link(Some(intent)),
        }
    }

    /// Writes an intent.
    pub fn intend(&mut self, container_id: &str) -> Sha256Digest {
        self.push(&Record::Intent(Box::new(self.intent(container_id))))
    }

    /// Writes a receipt.
    pub fn complete(&mut self, container_id: &str, intent: Sha256Digest) -> Sha256Digest {
        self.push(&Record::Receipt(Box::new(self.receipt(container_id, intent))))
    }

    /// Writes an abort.
    pub fn give_up(&mut self, container_id: &str, intent: Sha256Digest) -> Sha256Digest {
        self.push(&Record::Abort(Box::new(self.abort(container_id, intent))))
    }
}

/// Nothing happened between intent and receipt: the usual case on a quiet host.
pub fn short(signer: &Signer) -> Vec<Envelope> {
    let mut chain = Chain::new(signer, "default", 0);
    let intent = chain.intend("demo");
    chain.complete("demo", intent);
    chain.records
}

/// Between intent (seq 7) and receipt (seq 10) of `demo`, another container was announced and aborted.
pub fn long(signer: &Signer) -> Vec<Envelope> {
    let mut chain = Chain::new(signer, "default", 7);
    let demo = chain.intend("demo");
    let other = chain.intend("other");
    chain.give_up("other", other);
    chain.complete("demo", demo);
    chain.records
}

/// A process that entered by exec.
pub fn exec() -> ExecRecord {
    ExecRecord { argv: Some(digest("[\"sh\"]")), started_on: "2026-01-02T03:04:06Z".to_owned(), count: 1 }
}
