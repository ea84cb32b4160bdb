//! How long it takes to judge evidence in process, and to write and read canonical bytes.
#![allow(missing_docs)]

use std::hint::black_box;

use bpi_conformance::anchored::Available;
use bpi_conformance::mutants::Truth;
use bpi_conformance::story::{Signer, run, short};
use bpi_protocol::canonical;
use bpi_protocol::evidence::Evidence;
use bpi_protocol::run::Run;
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Level, Verifier, verify};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn judging(criterion: &mut Criterion) {
    let host = Signer::new("a");
    let files = Evidence::of(&short(&host)).expect("the story ends with a receipt").to_files();
    let trust = Trust::parse(&Truth::default().trust_json()).expect("a trust file");
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    for level in [Level::Signed, Level::Chained] {
        // From bytes, as they come from a folder: parsing is part of judging.
        let mut files = files.clone();
        if level == Level::Signed {
            files.remove("chain.jsonl");
        }
        group.bench_function(level.as_str(), |bencher| {
            bencher.iter(|| {
                let evidence = Evidence::from_files(black_box(files.clone())).expect("sound files");
                let report = verify(&evidence, &trust, level);
                assert_eq!(report.exit_code(), 0);
            });
        });
    }
    // Nine validators and three pinners; their keys, the seal and the pinners' signatures are part of it.
    let made = Available::story();
    let evidence = made.anchored.evidence.clone().with_finality(made.anchored.proof.clone());
    let (files, trust) = (evidence.with_availability(made.proof.clone()).to_files(), made.trust());
    let judge = |verifier: &mut Verifier<'_>| {
        let evidence = Evidence::from_files(black_box(files.clone())).expect("sound files");
        assert_eq!(verifier.judge(&evidence, None, Level::Final).exit_code(), 0);
    };
    group.bench_function("final", |bencher| bencher.iter(|| judge(&mut Verifier::new(&trust))));
    let mut verifier = Verifier::new(&trust);
    group.bench_function("final, of a header that was judged before", |bencher| bencher.iter(|| judge(&mut verifier)));
    group.finish();
}

fn canonicalising(criterion: &mut Criterion) {
    let run = run();
    let bytes = canonical::to_bytes(&run).expect("small integers");
    let mut group = criterion.benchmark_group("canonical run.json");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("write", |bencher| bencher.iter(|| canonical::to_bytes(black_box(&run))));
    group.bench_function("check", |bencher| bencher.iter(|| canonical::check(black_box(&bytes))));
    group.bench_function("read", |bencher| {
        bencher.iter(|| canonical::from_bytes::<Run>(black_box(&bytes), 1 << 20));
    });
    group.finish();
}

criterion_group!(benches, judging, canonicalising);
criterion_main!(benches);
