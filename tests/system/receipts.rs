//! What a receipt says, and that the programs that read receipts agree.

use bpi_tests::command::{DEADLINE, run};
use bpi_tests::daemon::Version;
use bpi_tests::records::{Kind, read};
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("an_intent_precedes_each_receipt_and_the_chain_has_no_gap", chain),
    ("two_honest_runs_have_the_same_run_hash", same_run_hash),
    ("another_argument_gives_another_run_hash", other_run_hash),
    ("the_receipt_names_the_manifest_not_the_tag", image_identity),
    ("exported_evidence_verifies_and_a_stranger_key_does_not", export_and_verify),
];

fn chain(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("chain")?;
    for id in ["one", "two", "three"] {
        namespace.run(id, &[], &["true"])?.ok()?;
    }
    let records = read(&daemon.spool, &namespace.name)?;
    let seen: Vec<_> = records.iter().map(|record| (record.kind, record.container().to_owned())).collect();
    let expected: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .flat_map(|id| [(Kind::Intent, id.to_owned()), (Kind::Receipt, id.to_owned())])
        .collect();
    ensure(seen == expected, format!("the chain holds {seen:?}"))?;
    for pair in records.windows(2) {
        let prev = pair[1].predicate.pointer("/chain/prev").map(ToString::to_string).unwrap_or_default();
        ensure(
            prev.contains(&pair[0].pae_digest),
            format!("record {} names {prev} as its predecessor, not {}", pair[1].seq, pair[0].pae_digest),
        )?;
    }
    done()
}

fn same_run_hash(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("same")?;
    for id in ["first", "second"] {
        namespace.run(id, &[], &["sh", "-c", "echo same; echo file > /out/file"])?.ok()?;
    }
    let (first, second) = (namespace.receipt("first")?, namespace.receipt("second")?);
    ensure(
        first.subject == second.subject,
        format!(
            "run-hash differs: {} and {}; run.json: {} and {}",
            first.subject, second.subject, first.predicate["run"], second.predicate["run"]
        ),
    )?;
    done()
}

fn other_run_hash(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("other")?;
    namespace.run("first", &[], &["sh", "-c", ": 1"])?.ok()?;
    namespace.run("second", &[], &["sh", "-c", ": 2"])?.ok()?;
    ensure(
        namespace.receipt("first")?.subject != namespace.receipt("second")?.subject,
        "two different runs have one run-hash",
    )?;
    done()
}

fn image_identity(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("image")?;
    namespace.run("image", &[], &["true"])?.ok()?;
    let receipt = namespace.receipt("image")?;
    let said = receipt.predicate.pointer("/run/image").map(ToString::to_string).unwrap_or_default();
    let digest = world.image.digest.trim_start_matches("sha256:");
    ensure(said.contains(digest), format!("the image is {digest}, the receipt says {said}"))?;
    done()
}

fn export_and_verify(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("export")?;
    namespace.run("shown", &[], &["echo", "hello"])?.ok()?;
    let evidence = world.scratch.path().join(format!("evidence-{}", namespace.name));
    let mut export = world.docklock(&daemon.config);
    export.args(["receipts", "export", "--boundary", &namespace.name, "shown"]).arg(&evidence);
    run(export, b"", DEADLINE)?.ok()?;
    let verify = |trust: &std::path::Path| {
        let mut command = world.docklock(&daemon.config);
        command.arg("verify").arg(&evidence).arg("--trust").arg(trust);
        run(command, b"", DEADLINE)
    };
    let ladder = verify(&daemon.trust)?.ok()?.text();
    ensure(ladder.contains("PASS"), format!("the ladder shows no PASS: {ladder}"))?;
    let stranger = world.scratch.path().join(format!("stranger-{}.key", namespace.name));
    let mut keygen = world.docklock(&daemon.config);
    keygen.arg("keygen").arg("--key-file").arg(&stranger);
    run(keygen, b"", DEADLINE)?.ok()?;
    verify(&stranger.with_extension("key.pub.pem"))?.expect_code(1)?;
    done()
}
