//! The ladder as OSCAL assessment results 1.1.2 in JSON (NIST, <https://pages.nist.gov/OSCAL-Reference/models/v1.1.2/assessment-results/json-reference/>).
//!
//! Each rung is an observation by test; what passes, fails, or is required and missing is a finding too, whose target is the rung as an
//! objective. What was not asked for and not checked is no finding. The plan that OSCAL wants imported is the ladder's description in the
//! back matter. Absent on purpose: controls of a catalogue; which of them a receipt serves is the assessor's to say.

use bpi_protocol::chain::{Entry, Record};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::verify::{Row, Status};
use serde_json::{Value, json};

use super::Judged;

const OSCAL_VERSION: &str = "1.1.2";
const NAMESPACE: &str = "https://bpi.io/ns/oscal";

/// The document.
pub(super) fn document(judged: &Judged<'_>) -> Value {
    let report = &judged.report;
    let seed = format!("{} {} {}", judged.judged_on, judged.evidence.receipt().pae_digest(), report.verdict());
    let id = |what: &str| uuid(&format!("{seed} {what}"));
    let observations: Vec<Value> = report
        .rows
        .iter()
        .map(|row| observation(row, &judged.judged_on, &id(&format!("observation {}", row.name))))
        .collect();
    let findings: Vec<Value> = (report.rows.iter())
        .filter(|row| row.status != Status::NotChecked || report.requires(row.name))
        .map(|row| {
            let (of, about) = (id(&format!("finding {}", row.name)), id(&format!("observation {}", row.name)));
            finding(row, &of, &about)
        })
        .collect();
    let mut props = vec![
        json!({ "name": "level", "ns": NAMESPACE, "value": report.level }),
        json!({ "name": "exit-code", "ns": NAMESPACE, "value": report.exit_code().to_string() }),
        json!({ "name": "receipt", "ns": NAMESPACE, "value": judged.evidence.receipt().pae_digest().to_string() }),
    ];
    if let Ok(Entry { record: Record::Receipt(_), subject, .. }) = judged.evidence.entry() {
        props.push(json!({ "name": "run-hash", "ns": NAMESPACE, "value": subject.to_string() }));
    }
    let plan = id("plan");
    json!({ "assessment-results": {
        "uuid": id("document"),
        "metadata": {
            "title": "Evidence of a run, checked by docklock verify",
            "last-modified": judged.judged_on,
            "version": "1",
            "oscal-version": OSCAL_VERSION,
        },
        "import-ap": { "href": format!("#{plan}") },
        "results": [{
            "uuid": id("result"),
            "title": format!("docklock verify --level {}", report.level),
            "description": clean(&report.verdict()),
            "start": judged.judged_on,
            "end": judged.judged_on,
            "props": props,
            "reviewed-controls": { "control-selections": [{ "include-all": {} }] },
            "observations": observations,
            "findings": findings,
        }],
        "back-matter": { "resources": [{
            "uuid": plan,
            "title": "The ladder of docklock verify",
            "description": "Signature, identity, schema and run-hash, chain without gaps, inclusion, finality, availability, policy, re-executed: each PASS, FAIL or NOT CHECKED, offline.",
        }] },
    } })
}

fn observation(row: &Row, collected: &str, id: &str) -> Value {
    json!({
        "uuid": id,
        "title": row.name.as_str(),
        "description": clean(&row.detail),
        "methods": ["TEST"],
        "types": ["control-objective"],
        "collected": collected,
        "props": [{ "name": "status", "ns": NAMESPACE, "value": row.status.as_str().replace(' ', "-").to_lowercase() }],
    })
}

fn finding(row: &Row, id: &str, observation: &str) -> Value {
    let (state, reason) = match row.status {
        Status::Pass => ("satisfied", "pass"),
        Status::Fail => ("not-satisfied", "fail"),
        Status::NotChecked => ("not-satisfied", "other"),
    };
    json!({
        "uuid": id,
        "title": row.name.as_str(),
        "description": clean(&row.detail),
        "target": {
            "type": "objective-id",
            "target-id": format!("docklock-{}", row.name.key()),
            "status": { "state": state, "reason": reason },
        },
        "related-observations": [{ "observation-uuid": observation }],
    })
}

/// One line without blanks at its ends, never empty: what OSCAL's strings have to be.
fn clean(text: &str) -> String {
    let line = crate::output::plain(text).replace('\n', " ");
    if line.trim().is_empty() { "nothing was said".to_owned() } else { line.trim().to_owned() }
}

/// 122 bits of SHA-256 in the form of a random UUID (RFC 9562, 5.4), the one that OSCAL's pattern takes: one check has one document.
fn uuid(seed: &str) -> String {
    let digest = Sha256Digest::of(seed.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
