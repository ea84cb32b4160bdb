//! Two logs of decisions, two listings, or a receipt's configuration from a stranger: reading them never panics, and what is compared with
//! itself is the same.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Run;
use docklock::rerun::{compare, listing, recipe, trace_diff};
use libfuzzer_sys::fuzz_target;

const RUN: &str = include_str!("../seeds/rerun/run.json");

fuzz_target!(|bytes: &[u8]| {
    let (left, right) = bytes.split_at(bytes.len() / 2);
    if let Ok(diff) = trace_diff::first_divergence(bytes, bytes) {
        assert!(diff.divergence.is_none() && diff.first_argument.is_none());
        assert_eq!(trace_diff::root(bytes).expect("it was read before").1, diff.common);
    }
    if let Ok(diff) = trace_diff::first_divergence(left, right)
        && let Some(parted) = diff.divergence
    {
        for event in parted.left.iter().chain(&parted.right) {
            assert!(!event.to_string().is_empty());
        }
    }
    if let Ok(diff) = listing::diff(bytes, bytes) {
        assert!(diff.is_empty());
    }
    drop(listing::diff(left, right));
    let mut run: Run = serde_json::from_str(RUN).expect("the seed is a run");
    run.config.digest = Sha256Digest::of(bytes);
    drop(recipe::specification(&run, bytes, Path::new("/r"), &BTreeMap::new()));
    if let Ok(other) = serde_json::from_slice::<Run>(bytes) {
        assert!(compare::compare(&other, &other).differ.is_empty());
        drop(compare::compare(&run, &other));
    }
});
