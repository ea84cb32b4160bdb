//! What can be done to the stretch of chain beside a receipt: by somebody who only rearranges, and by a host that lies.

use std::collections::BTreeMap;

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::evidence::{CHAIN_FILE, Evidence};
use bpi_protocol::verify::Level;

use super::{Layer, Mutant, Raw, Truth};
use crate::story::Chain;

pub(super) fn mutants(truth: &Truth) -> Vec<Mutant> {
    let mut made = Vec::new();
    rearranged(truth, &mut made);
    tampered(truth, &mut made);
    lies(truth, &mut made);
    made
}

fn lines(envelopes: &[Vec<u8>]) -> Vec<u8> {
    envelopes.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

fn with_chain(truth: &Truth, name: &str, chain: Vec<u8>) -> Mutant {
    let mut files = truth.files();
    files.insert(CHAIN_FILE.to_owned(), chain);
    mutant(name, files)
}

fn mutant(name: &str, files: BTreeMap<String, Vec<u8>>) -> Mutant {
    Mutant { name: name.to_owned(), layer: Layer::Chain, level: Level::Chained, files, raw: None }
}

/// True records (intent 7, intent 8, abort 9), but not those that belong there.
fn rearranged(truth: &Truth, made: &mut Vec<Mutant>) {
    let mut add = |name: &str, order: &[usize]| {
        let chosen: Vec<_> = order.iter().map(|index| truth.records[*index].to_json()).collect();
        made.push(with_chain(truth, name, lines(&chosen)));
    };
    add("chain: the intent is missing", &[1, 2]);
    add("chain: a record in the middle is missing", &[0, 2]);
    add("chain: the last record is missing", &[0, 1]);
    add("chain: two records are missing", &[0]);
    add("chain: a record is there twice", &[0, 1, 1, 2]);
    add("chain: two records changed places", &[0, 2, 1]);
    add("chain: the last record comes first", &[2, 0, 1]);
    add("chain: goes on after the receipt", &[0, 1, 2, 3, 0]);
}

/// One line was changed by somebody without the key.
fn tampered(truth: &Truth, made: &mut Vec<Mutant>) {
    let mut add = |name: &str, at: usize, bend: &dyn Fn(&mut Raw)| {
        let mut chosen: Vec<_> = truth.records[..3].iter().map(Envelope::to_json).collect();
        let mut raw = Raw::of(&truth.records[at]);
        bend(&mut raw);
        chosen[at] = raw.envelope();
        made.push(with_chain(truth, name, lines(&chosen)));
    };
    add("chain: signature of the intent altered", 0, &|raw| raw.signature[3] ^= 4);
    add("chain: signature of the abort altered", 2, &|raw| raw.signature[3] ^= 4);
    add("chain: payload of the intent altered", 0, &|raw| raw.payload[1] ^= 1);
    add("chain: payload of another type", 1, &|raw| raw.payload_type = "text/plain".to_owned());
    let stranger = &truth.stranger;
    let forged = {
        let mut chain = Chain::new(stranger, "default", 8);
        chain.intend("other");
        chain.records.remove(0)
    };
    add("chain: a stranger's record in the middle", 1, &move |raw| *raw = Raw::of(&forged));
}

/// The host signs records that contradict each other.
fn lies(truth: &Truth, made: &mut Vec<Mutant>) {
    let mut add = |name: &str, tell: &dyn Fn(&mut Chain<'_>)| {
        let mut chain = Chain::new(&truth.host, "default", 7);
        tell(&mut chain);
        let evidence = Evidence::of(&chain.records).expect("each lie ends with a receipt");
        made.push(mutant(name, evidence.to_files()));
    };
    add("lie: the intent was of another container", &|chain| {
        let intent = chain.intend("other");
        chain.complete("demo", intent);
    });
    add("lie: closed by an abort and by a receipt", &|chain| {
        let intent = chain.intend("demo");
        chain.give_up("demo", intent);
        chain.complete("demo", intent);
    });
    add("lie: two receipts for one intent", &|chain| {
        let intent = chain.intend("demo");
        chain.complete("demo", intent);
        chain.complete("demo", intent);
    });
    add("lie: the receipt closes an abort", &|chain| {
        let intent = chain.intend("demo");
        let abort = chain.give_up("demo", intent);
        chain.complete("demo", abort);
    });
    add("lie: another cage than announced", &|chain| {
        let intent = chain.intend("demo");
        let mut receipt = chain.receipt("demo", intent);
        receipt.run.cage.profile = "service".to_owned();
        chain.push(&Record::Receipt(Box::new(receipt)));
    });
    add("lie: another configuration than announced", &|chain| {
        let intent = chain.intend("demo");
        let mut receipt = chain.receipt("demo", intent);
        receipt.run.config.digest = Sha256Digest::of(b"another");
        chain.push(&Record::Receipt(Box::new(receipt)));
    });
    add("lie: a fork", &|chain| {
        let intent = chain.intend("demo");
        let mut fork = chain.receipt("demo", intent);
        fork.chain.seq = 7;
        chain.push(&Record::Receipt(Box::new(fork)));
    });
    add("lie: a link to nothing", &|chain| {
        let intent = chain.intend("demo");
        let mut receipt = chain.receipt("demo", intent);
        receipt.chain.prev = Some(Sha256Digest::of(b"nothing"));
        chain.push(&Record::Receipt(Box::new(receipt)));
    });
    add("lie: a number left out", &|chain| {
        let intent = chain.intend("demo");
        let mut receipt = chain.receipt("demo", intent);
        receipt.chain.seq = 9;
        chain.push(&Record::Receipt(Box::new(receipt)));
    });
    add("lie: another boundary", &|chain| {
        let intent = chain.intend("demo");
        let mut receipt = chain.receipt("demo", intent);
        receipt.chain.boundary = "k8s.io".to_owned();
        chain.push(&Record::Receipt(Box::new(receipt)));
    });
    add("lie: the intent is in another host's name", &|chain| {
        let mut intent = chain.intent("demo");
        intent.host.id = "spiffe://bpi.example/host/b".to_owned();
        let intent = chain.push(&Record::Intent(Box::new(intent)));
        chain.complete("demo", intent);
    });
}
