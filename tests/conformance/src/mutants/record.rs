//! What a trusted host can sign that is nevertheless not a receipt. Only a verifier that knows the rules of a receipt can tell.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bpi_protocol::canonical;
use bpi_protocol::chain::run_json;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::evidence::{BUNDLE_FILE, RUN_FILE};
use bpi_protocol::receipt::{RECEIPT_TYPE, Receipt};
use bpi_protocol::run::Trace;
use bpi_protocol::statement::Statement;
use bpi_protocol::verify::Level;

use super::{Layer, Mutant, Raw, Truth};
use crate::story::exec;

pub(super) fn mutants(truth: &Truth) -> Vec<Mutant> {
    let mut made = Vec::new();
    texts(truth, &mut made);
    values(truth, &mut made);
    whole(truth, &mut made);
    made
}

/// Evidence of a bundle alone: run.json and the chain would only say the same again.
fn alone(name: &str, envelope: &Envelope) -> Mutant {
    let files = BTreeMap::from([(BUNDLE_FILE.to_owned(), Raw::of(envelope).bundle())]);
    Mutant { name: name.to_owned(), layer: Layer::Record, level: Level::Signed, files, raw: None }
}

/// The statement's text changed, then signed by the host.
fn texts(truth: &Truth, made: &mut Vec<Mutant>) {
    let payload = String::from_utf8(truth.receipt().payload().to_vec()).expect("a statement is UTF-8");
    let mut add = |name: &str, from: &str, to: &str| {
        assert!(payload.contains(from), "the statement holds {from}");
        let text = payload.replacen(from, to, 1);
        made.push(alone(name, &truth.host.seal_bytes(text.into_bytes())));
    };
    add("signed: unknown member", "\"platform\":", "\"mood\":1,\"platform\":");
    add("signed: float", "\"exitCode\":0", "\"exitCode\":0.5");
    add("signed: exponent", "\"exitCode\":0", "\"exitCode\":1e2");
    add("signed: integer beyond 2^53 - 1", "\"bytes\":6", "\"bytes\":9007199254740992");
    add("signed: leading zero", "\"exitCode\":0", "\"exitCode\":00");
    add("signed: null", "\"exitCode\":0", "\"exitCode\":null");
    add("signed: duplicate member", "\"exitCode\":0", "\"exitCode\":0,\"exitCode\":1");
    add("signed: members out of order", "\"bytes\":6,\"digest\":", "\"digest\":");
    add("signed: blank space", "{\"_type\"", "{ \"_type\"");
    add("signed: needless escape", "linux/amd64", "linux\\/amd64");
    add("signed: another Statement version", "in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1");
    add("signed: unknown predicateType", "execution-receipt/v1", "execution-receipt/v2");
    add("signed: subject has another name", "\"name\":\"run.json\"", "\"name\":\"run.yaml\"");
    add("signed: cut off", "\"subject\":[", "\"subject\":");
    add("signed: an empty list of escapes", "\"execs\":[]", "\"escapes\":[],\"execs\":[]");
    let subject = payload.split("\"subject\":").nth(1).expect("a statement has a subject").to_owned();
    let one = subject.trim_start_matches('[').trim_end_matches("]}").to_owned();
    add("signed: two subjects", &one, &format!("{one},{one}"));
    add("signed: no subject", &one, "");
    let digest = one.split("\"sha256\":\"").nth(1).expect("a subject has a digest")[..64].to_owned();
    add("signed: subject is another run", &one, &one.replace(&digest, &"0".repeat(64)));
    add("signed: digest in upper case", &one, &one.replace(&digest, &digest.to_uppercase()));
}

/// A receipt with a member that breaks a rule, written and signed properly otherwise.
fn values(truth: &Truth, made: &mut Vec<Mutant>) {
    let statement: Statement<Receipt> =
        canonical::from_bytes(truth.receipt().payload(), usize::MAX).expect("it is true");
    let mut add = |name: &str, bend: &dyn Fn(&mut Receipt)| {
        let mut receipt = statement.predicate.clone();
        bend(&mut receipt);
        let (run_hash, _) = run_json(&receipt.run).expect("its integers are small");
        let bytes = canonical::to_bytes(&Statement::new("run.json", run_hash, RECEIPT_TYPE, receipt));
        made.push(alone(name, &truth.host.seal_bytes(bytes.expect("its integers are small"))));
    };
    add("signed: exit code 256", &|receipt| receipt.run.result.exit_code = Some(256));
    add("signed: exit code and signal", &|receipt| receipt.run.result.signal = Some(9));
    add("signed: neither exit code nor signal", &|receipt| receipt.run.result.exit_code = None);
    add("signed: inputs unsorted", &|receipt| receipt.run.inputs.reverse());
    add("signed: a denial counted twice", &|receipt| {
        let first = receipt.run.denied[0].clone();
        receipt.run.denied.insert(0, first);
    });
    add("signed: a denial without errno", &|receipt| receipt.run.denied[0].errno = None);
    add("signed: a denial that never happened", &|receipt| receipt.run.denied[0].count = 0);
    add("signed: a level nobody defined", &|receipt| receipt.assurance.level = "D9".to_owned());
    add("signed: repeatable anywhere although the kernel scheduled", &|receipt| {
        receipt.assurance.level = "D3".to_owned()
    });
    add("signed: pinned although a process entered", &|receipt| {
        receipt.assurance.level = "D1".to_owned();
        receipt.assurance.execs = vec![exec()];
    });
    add("signed: a schedule nobody defined", &|receipt| receipt.run.params.schedule = "fair".to_owned());
    add("signed: two words about who scheduled", &|receipt| receipt.assurance.schedule = Some("single".to_owned()));
    add("signed: a trace although the kernel scheduled", &|receipt| receipt.run.trace = Some(trace()));
    add("signed: a root that is no digest", &|receipt| {
        receipt.run.params.schedule = "turns".to_owned();
        receipt.run.trace = Some(Trace { digest: "0".repeat(63), ..trace() });
    });
    add("signed: escapes unsorted", &|receipt| {
        receipt.assurance.escapes = ["the second", "the first"].map(str::to_owned).to_vec();
    });
    add("signed: more escapes than anybody reads", &|receipt| {
        receipt.assurance.escapes = (100..165).map(|number| format!("escape {number}")).collect();
    });
    add("signed: a fence absent without a reason", &|receipt| receipt.assurance.fences[0].reason = None);
    add("signed: a time zone", &|receipt| receipt.observed.started_on = "2026-01-02T03:04:05+01:00".to_owned());
    add("signed: the thirteenth month", &|receipt| receipt.observed.finished_on = "2026-13-02T03:04:05Z".to_owned());
    add("signed: a boundary with a path in it", &|receipt| receipt.chain.boundary = "../default".to_owned());
    add("signed: closes nothing", &|receipt| receipt.chain.started_ref = None);
    add("signed: no record before it", &|receipt| receipt.chain.prev = None);
    add("signed: run of another schema", &|receipt| receipt.run.type_ = "https://bpi.io/run/v2".to_owned());
    add("signed: another host's id", &|receipt| receipt.host.id = "spiffe://bpi.example/host/b".to_owned());
    add("signed: host id is no SPIFFE id", &|receipt| receipt.host.id = "host-a".to_owned());
    let stranger = truth.stranger.public_key().keyid();
    add("signed: another key's name in the statement", &move |receipt| receipt.host.keyid.clone_from(&stranger));
}

/// A root of no run.
fn trace() -> Trace {
    Trace { alg: "blake3".to_owned(), digest: "0".repeat(64), events: 1, format: "docklock-trace/1".to_owned() }
}

/// Whole things that are not what they should be.
fn whole(truth: &Truth, made: &mut Vec<Mutant>) {
    made.push(alone("an intent instead of a receipt", &truth.records[0]));
    made.push(alone("an abort instead of a receipt", &truth.records[2]));
    let payload = truth.receipt().payload().to_vec();
    let keyid = truth.host.public_key().keyid();
    let plain = Envelope::sign_as("application/json", payload, &keyid, |pae| Ok::<_, Infallible>(truth.host.sign(pae)));
    made.push(alone("signed as another payloadType", &plain.unwrap_or_else(|never| match never {})));
    let mut raw = Raw::of(truth.receipt());
    raw.keyid = truth.stranger.public_key().keyid();
    let files = truth.with_bundle(raw.bundle());
    made.push(Mutant {
        name: "keyid swapped".to_owned(),
        layer: Layer::Record,
        level: Level::Signed,
        files,
        raw: None,
    });

    let run = String::from_utf8(truth.files()[RUN_FILE].clone()).expect("run.json is UTF-8");
    let mut add = |name: &str, content: String| {
        let mut files = truth.files();
        files.insert(RUN_FILE.to_owned(), content.into_bytes());
        made.push(Mutant { name: name.to_owned(), layer: Layer::Record, level: Level::Signed, files, raw: None });
    };
    add("run.json: exit code altered", run.replacen("\"exitCode\":0", "\"exitCode\":1", 1));
    add("run.json: not canonical", run.replacen(':', ": ", 1));
    add("run.json: unknown member", run.replacen("\"platform\"", "\"nothing\":1,\"platform\"", 1));
    add("run.json: float", run.replacen("\"exitCode\":0", "\"exitCode\":0.0", 1));
    add("run.json: duplicate member", run.replacen("\"exitCode\":0", "\"exitCode\":0,\"exitCode\":0", 1));
    add("run.json: cut off", run[..run.len() / 2].to_owned());
    add("run.json: empty", String::new());
    add("run.json: something after it", format!("{run}{run}"));
    add("run.json: not UTF-8 friendly", run.replacen("linux", "linu\u{0}", 1));
    let other = Sha256Digest::of(b"another").to_string();
    let digest = run.split("\"sha256\":\"").nth(1).expect("a run has digests")[..64].to_owned();
    add("run.json: another input", run.replacen(&digest, &other, 1));
}
