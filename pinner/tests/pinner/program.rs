//! The program as it runs: over a relay, killed at random, and on the command line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bpi_pinner::catalogue::without;
use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Described, Reason, Request};

use crate::mesh::{Agent, Program, Site, file_of};
use crate::site::{CHAIN, Key, batch, pieces};

/// Brings shards until all are acknowledged.
fn bring(agent: &mut Agent, to: [u8; 32], offer: &Described, encoded: &bpi_availability::codec::Encoded) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(90), "not acknowledged");
        agent.ask(to, &Request::Offer(Box::new(offer.clone())));
        let (asked, mut sent) = (Instant::now(), false);
        while asked.elapsed() < Duration::from_secs(3) {
            match agent.answer(Duration::from_millis(300)) {
                Some((_, Answer::Have { da_root, shards })) if da_root == encoded.da_root && !sent => {
                    sent = true;
                    for piece in pieces(encoded, without(offer.shards, shards)) {
                        while agent.waiting(&to) > 2 << 20 {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        agent.ask(to, &Request::Piece(piece));
                    }
                }
                Some((_, Answer::Kept { da_root, acknowledgement })) if da_root == encoded.da_root => {
                    assert!(acknowledgement.is_signed(CHAIN, &offer.batch));
                    if without(offer.shards, acknowledgement.shards).is_empty() {
                        return;
                    }
                }
                Some((_, Answer::Refused { sentence, .. })) => panic!("{sentence}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_batch_is_brought_probed_fetched_and_described_over_a_relay() {
    let site = Site::new();
    let key = Key::of(0xa);
    let mut pinner = site.pinner("p", key.identity(), "");
    pinner.start();
    let mut agent = site.agent(&key);
    let to = pinner.identity;
    pinner.until("/health", |text| text.contains("\"healthy\":true"));
    let (offer, encoded) = batch(1, 2_500_000);
    bring(&mut agent, to, &offer, &encoded);

    let probe = Request::Probe { da_root: encoded.da_root, shard: 11, leaf: encoded.coding.leaves() - 1 };
    let opening = agent.until(to, &probe, |answer| match answer {
        Answer::Opening { opening, .. } => Some(Opening::from_bytes(opening).unwrap()),
        _ => None,
    });
    opening.check(&encoded.coding, &encoded.da_root).unwrap();
    let fetch = Request::Fetch { da_root: encoded.da_root, shard: 3, stripe: 2 };
    let piece = agent.until(to, &fetch, |answer| match answer {
        Answer::Piece(piece) => Some(piece.clone()),
        _ => None,
    });
    assert_eq!(piece, pieces(&encoded, ShardSet::default().with(3))[2]);
    let described = agent.until(to, &Request::Describe { da_root: encoded.da_root }, |answer| match answer {
        Answer::Described(described) => Some((**described).clone()),
        _ => None,
    });
    assert_eq!(described, offer);
    let mut foreign = offer.clone();
    foreign.batch.tenant.0 = [9; 16];
    let reason = agent.until(to, &Request::Offer(Box::new(foreign)), |answer| match answer {
        Answer::Refused { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Reason::Stranger);

    let root = hex::encode(encoded.da_root);
    let said = pinner.until(&format!("/v1/batches/{root}"), |text| text.contains("\"kept\""));
    assert!(said.contains("\"kept\":[0,1,2,3,4,5,6,7,8,9,10,11]"), "{said}");
    let metrics = pinner.until("/metrics", |text| text.contains("bpi_pinner_requests_total"));
    for line in
        ["bpi_pinner_shards{state=\"kept\"} 12", "kind=\"probe\",result=\"answered\"}", "bpi_pinner_log_entries 12"]
    {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let status = pinner.say(&["status"]);
    assert!(status.contains("12 kept, 0 bad"), "{status}");
    // The log can be read while the pinner runs.
    assert!(pinner.say(&["log", "verify"]).starts_with("12 entries are chained"));
    let ended = pinner.stop();
    assert!(ended.success(), "{ended:?} {}", pinner.log());
    assert!(pinner.say(&["scrub", "--offline"]).starts_with("12 shards are as they should be"));
    let listed = pinner.say(&["log", "list", "--format", "json", "--from", "11"]);
    let entry: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((entry["number"].as_u64(), entry["kind"].as_str()), (Some(11), Some("kept")));
    let file = pinner.folder.join("log.parquet");
    pinner.say(&["log", "export", "--parquet", file.to_str().unwrap()]);
    assert!(std::fs::read(&file).unwrap().starts_with(b"PAR1"));
}

#[test]
fn a_pinner_that_is_killed_again_and_again_loses_nothing_that_it_acknowledged() {
    let rounds: u64 = std::env::var("BPI_PINNER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let site = Site::new();
    let key = Key::of(0xb);
    let mut pinner = site.pinner("p", key.identity(), "");
    let mut agent = site.agent(&key);
    let to = pinner.identity;
    let mut kept: BTreeMap<Hash, (Described, bpi_availability::codec::Encoded, ShardSet)> = BTreeMap::new();
    let mut seed = 0;
    for round in 0..rounds {
        pinner.start();
        // 0.4 to 3 s after it was started.
        let until = Instant::now() + Duration::from_millis(400 + (round * 1_237) % 2_600);
        let mut asked = Instant::now() - Duration::from_secs(9);
        while Instant::now() < until {
            if asked.elapsed() > Duration::from_millis(300) {
                asked = Instant::now();
                let open =
                    kept.values().find(|(offer, _, done)| *done != offer.shards).map(|(offer, ..)| offer.clone());
                let offer = open.unwrap_or_else(|| {
                    seed += 1;
                    let (offer, encoded) = batch(seed, 200_000 + usize::from(seed) * 50_000);
                    kept.insert(encoded.da_root, (offer.clone(), encoded, ShardSet::default()));
                    offer
                });
                agent.ask(to, &Request::Offer(Box::new(offer)));
            }
            match agent.answer(Duration::from_millis(20)) {
                Some((_, Answer::Have { da_root, shards })) => {
                    let (offer, encoded, _) = &kept[&da_root];
                    for piece in pieces(encoded, without(offer.shards, shards)) {
                        agent.ask(to, &Request::Piece(piece));
                    }
                }
                Some((_, Answer::Kept { da_root, acknowledgement })) => {
                    let (offer, _, done) = kept.get_mut(&da_root).unwrap();
                    assert!(acknowledgement.is_signed(CHAIN, &offer.batch));
                    assert!(without(*done, acknowledgement.shards).is_empty(), "what was acknowledged is no more");
                    *done = acknowledgement.shards;
                    asked = Instant::now() - Duration::from_secs(9);
                }
                Some((_, Answer::Refused { sentence, .. })) => panic!("{sentence}"),
                _ => {}
            }
        }
        pinner.kill();
    }
    let acknowledged: u16 = kept.values().map(|(_, _, done)| done.len()).sum();
    assert!(acknowledged >= 12, "{acknowledged} acknowledged: {}", pinner.log());
    // Read on its own, before it can repair or sweep anything.
    pinner.say(&["scrub", "--offline"]);
    pinner.say(&["log", "verify"]);
    pinner.start();
    for (root, (_, encoded, done)) in &kept {
        for shard in done.iter() {
            let probe = Request::Probe { da_root: *root, shard, leaf: encoded.coding.leaves() - 1 };
            let opening = agent.until(to, &probe, |answer| match answer {
                Answer::Opening { da_root, shard: of, opening, .. } if (da_root, of) == (root, &shard) => {
                    Some(Opening::from_bytes(opening).unwrap())
                }
                _ => None,
            });
            opening.check(&encoded.coding, root).unwrap();
        }
    }
}

#[test]
fn bad_shards_are_made_anew_of_another_pinners_over_a_relay() {
    let site = Site::new();
    let key = Key::of(0xc);
    let more = "[repair]\nevery_s = 1\n[scrub]\nbytes_per_s = 1073741824";
    let (mut first, mut second) = (site.pinner("p1", key.identity(), more), site.pinner("p2", key.identity(), more));
    first.knows("peer", &second.identity);
    second.knows("peer", &first.identity);
    let mut agent = site.agent(&key);
    let (offer, encoded) = batch(1, 1_500_000);
    let of = |shards: std::ops::Range<u8>| Described { shards: shards.collect(), ..offer.clone() };
    for (pinner, shards) in [(&mut first, 0..6), (&mut second, 6..12)] {
        pinner.start();
        bring(&mut agent, pinner.identity, &of(shards), &encoded);
    }
    first.kill();
    let root = encoded.da_root;
    let whole = std::fs::read(file_of(&first, &root, 1)).unwrap();
    let mut bent = whole.clone();
    bent[777] ^= 1;
    std::fs::write(file_of(&first, &root, 1), bent).unwrap();
    std::fs::remove_file(file_of(&first, &root, 2)).unwrap();
    std::fs::write(file_of(&first, &root, 3), &whole[..1000]).unwrap();
    std::fs::copy(file_of(&first, &root, 5), file_of(&first, &root, 4)).unwrap();
    let said = first.run(&["scrub", "--offline"]);
    let error = String::from_utf8(said.stderr).unwrap();
    assert!(error.starts_with("bpi-pinner: BP0308: 4 shards are bad"), "{error}");
    first.start();
    first.until("/health", |text| text.contains("\"healthy\":true"));
    first.say(&["scrub"]);
    first.until("/metrics", |text| text.contains("bpi_pinner_repairs_total{kind=\"shard\",result=\"repaired\"} 4"));
    first.until("/v1/status", |text| text.contains("\"shards\":{\"bad\":0,\"kept\":6}"));
    assert!(first.stop().success());
    assert!(first.say(&["scrub", "--offline"]).starts_with("6 shards"));
    assert_eq!(std::fs::read(file_of(&first, &root, 1)).unwrap(), whole);
    let listed = first.say(&["log", "list", "--format", "json"]);
    for (kind, count) in [("kept", 6), ("scrubbed-bad", 4), ("repaired", 4)] {
        assert_eq!(listed.matches(&format!("\"kind\":\"{kind}\"")).count(), count, "{listed}");
    }
}

#[test]
fn what_cannot_run_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pinner.toml");
    std::fs::write(
        &config,
        format!("chain = \"{CHAIN}\"\nkey_file = \"k\"\ndata_dir = \"d\"\napi = \"127.0.0.1:1\"\n"),
    )
    .unwrap();
    let program = Program { folder: folder.path().into(), config, api: 1, identity: [0; 32], child: None };
    let fails = |words: &[&str], status: i32, sentence: &str| {
        let output = program.run(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(status) && error.contains(sentence), "{words:?}: {error}");
    };
    fails(&["run"], 2, "BP0201: there is no key at");
    fails(&["status"], 1, "BP0404: no pinner answers at 127.0.0.1:1");
    fails(&["log", "verify"], 1, "BP0304: could not open the index in");
    program.say(&["keygen"]);
    fails(&["keygen"], 2, "BP0201");
    assert_eq!(program.say(&["keygen", "--print"]), program.say(&["keygen", "--print"]));
    assert!(program.say(&["check"]).contains("0 agents, 0 other pinners"));
    assert!(program.say(&["check", "--print"]).contains("quota_bytes = 107374182400"));
    assert!(program.say(&["--version"]).starts_with("bpi-pinner 0.1.0 ("));
    assert!(program.say(&["completion", "bash"]).contains("bpi-pinner"));
    program.say(&["scrub", "--offline"]);
    // The data of one pinner are not another's.
    std::fs::remove_file(folder.path().join("k")).unwrap();
    program.say(&["keygen"]);
    fails(&["run"], 2, "BP0307: the index is that of pinner");
}
