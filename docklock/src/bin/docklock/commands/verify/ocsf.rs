//! The verdict as an OCSF 1.3.0 compliance finding, class 2003 (<https://schema.ocsf.io/1.3.0/classes/compliance_finding>).
//!
//! One check is one event: a finding that was made now. The rungs stand under `unmapped`, where OCSF wants what it has no words for.

use bpi_protocol::chain::{Entry, Record};
use serde_json::{Value, json};

use super::Judged;
use crate::output::plain;

const OCSF_VERSION: &str = "1.3.0";
const CATEGORY_UID: u64 = 2;
const CLASS_UID: u64 = 2003;
/// A finding is created.
const ACTIVITY_ID: u64 = 1;

/// The event.
pub(super) fn event(judged: &Judged<'_>) -> Value {
    let report = &judged.report;
    // OCSF: 1 informational, 2 low, 3 medium, 4 high; compliance: 1 pass, 2 warning (no result for want of information), 3 fail.
    let (severity_id, severity, status_id, status) = match report.exit_code() {
        0 => (1, "Informational", 1, "Pass"),
        3 => (2, "Low", 2, "Warning"),
        4 => (3, "Medium", 3, "Fail"),
        _ => (4, "High", 3, "Fail"),
    };
    let receipt = judged.evidence.receipt().pae_digest().to_string();
    let mut resource = json!({ "type": "execution receipt", "uid": receipt });
    if let Ok(Entry { record: Record::Receipt(found), subject, .. }) = judged.evidence.entry() {
        resource["name"] = json!(found.observed.container_id);
        resource["labels"] = json!([format!("run-hash:{subject}"), format!("host:{}", found.host.id)]);
    }
    let verdict = plain(&report.verdict());
    let requirements: Vec<&str> =
        report.rows.iter().filter(|row| report.requires(row.name)).map(|row| row.name.as_str()).collect();
    json!({
        "activity_id": ACTIVITY_ID,
        "activity_name": "Create",
        "category_uid": CATEGORY_UID,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Compliance Finding",
        "type_uid": CLASS_UID * 100 + ACTIVITY_ID,
        "type_name": "Compliance Finding: Create",
        "time": judged.judged_ms,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 1,
        "status": "New",
        "message": verdict,
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "docklock", "vendor_name": "BPI", "version": docklock::seal::VERSION },
        },
        "finding_info": {
            "uid": format!("{receipt}:{}:{}", report.level, judged.judged_ms),
            "title": format!("Evidence of a run at level {}", report.level),
            "desc": verdict,
            "created_time": judged.judged_ms,
        },
        "compliance": {
            "standards": ["https://bpi.io/attestation/execution-receipt/v1"],
            "control": format!("docklock verify --level {}", report.level),
            "requirements": requirements,
            "status_id": status_id,
            "status": status,
            "status_code": report.exit_code().to_string(),
            "status_detail": verdict,
        },
        "resources": [resource],
        "unmapped": { "rows": report.rows },
    })
}
