//! Policies, reports, exports and redaction, by the built program.

use std::fs;
use std::path::Path;
use std::process::Output;

use bpi_protocol::evidence::Evidence;
use serde_json::{Value, json};

use crate::anchored::Anchored;
use crate::host::{Host, assert_fails, stderr, stdout};

fn starter(name: &str) -> String {
    format!("{}/../policies/acceptance/{name}.rego", env!("CARGO_MANIFEST_DIR"))
}

/// Evidence and what judges it.
struct Case {
    host: Host,
    evidence: String,
    trust: String,
}

impl Case {
    fn new() -> Self {
        let host = Host::new();
        let (evidence, trust) = (host.evidence("demo"), host.trust());
        Self { host, evidence, trust }
    }

    fn verify(&self, more: &[&str]) -> Output {
        self.host.run(&[&["verify", &self.evidence, "--trust", &self.trust], more].concat())
    }

    /// Exit status and what was printed, by a starter with this data.
    fn judged(&self, policy: &str, data: Value) -> (Option<i32>, String) {
        let data = self.host.write("data.json", &data.to_string());
        let output = self.verify(&["--policy", &starter(policy), "--policy-data", data.to_str().unwrap()]);
        (output.status.code(), format!("{}{}", stdout(&output), stderr(&output)))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.verify(arguments);
        serde_json::from_str(&stdout(&output)).unwrap()
    }
}

#[test]
fn each_starter_refuses_with_its_reason_and_accepts_what_it_is_for() {
    let case = Case::new();
    let (status, text) = case.judged("only-these-images", json!({"images": []}));
    assert_eq!(status, Some(4), "{text}");
    assert!(text.contains("FAIL         policy") && text.contains("names no image"), "{text}");
    assert!(text.contains("refused: policy: only-these-images.rego does not accept it"), "{text}");
    let (status, text) = case.judged("strict-and-deterministic", json!({}));
    assert_eq!(status, Some(4), "{text}");
    assert!(text.contains("profile standard, not strict") && text.contains("not D3"), "{text}");
    let (status, text) = case.judged("clean-exit", json!({}));
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("PASS         policy               clean-exit.rego accepts it"), "{text}");
    let (status, text) = case.judged("hosts-of-our-domain", json!({"trustDomain": "bpi.local"}));
    assert_eq!(status, Some(0), "{text}");
    for (data, reason) in [(json!({"trustDomain": "bpi.loca"}), "is not of bpi.loca"), (json!({}), "needs data")] {
        let (status, text) = case.judged("hosts-of-our-domain", data);
        assert_eq!(status, Some(4), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    let (status, text) = case.judged("final-and-available", json!({}));
    assert_eq!(status, Some(4), "{text}");
    assert!(text.contains("availability: NOT CHECKED; finality: NOT CHECKED; inclusion: NOT CHECKED"), "{text}");
    let (status, text) = case.judged("fresh-enough", json!({"notBeforeMs": 1}));
    assert_eq!(status, Some(4), "{text}");
    assert!(text.contains("no final header"), "{text}");
}

#[test]
fn the_time_of_a_final_header_is_fresh_enough_or_not() {
    let mut case = Case::new();
    let anchored = Anchored::new(&case.evidence);
    fs::write(format!("{}/finality.bin", case.evidence), anchored.proof.to_bytes()).unwrap();
    let key = fs::read_to_string(&case.trust).unwrap();
    let hosts = json!([{ "id": "spiffe://bpi.local/host/test", "publicKey": key }]);
    let trust = json!({ "hosts": hosts, "chains": anchored.chains() });
    case.trust = case.host.write("trust.json", &trust.to_string()).to_str().unwrap().to_owned();
    let time = anchored.proof.header.time.0;
    assert_eq!(case.judged("fresh-enough", json!({"notBeforeMs": time})).0, Some(0));
    let (status, text) = case.judged("fresh-enough", json!({"notBeforeMs": time + 1}));
    assert_eq!(status, Some(4), "{text}");
    assert!(text.contains("is the earliest"), "{text}");
}

/// The starters that cannot accept a receipt of a test host accept one of the right kind.
#[test]
fn an_image_on_the_list_and_a_strict_run_are_accepted() {
    let case = Case::new();
    let policy = fs::read_to_string(starter("only-these-images")).unwrap();
    // Evidence with an image needs a container; the rule is asked with the image put in the input's place.
    let digest = "ab".repeat(32);
    let policy = policy.replace("input.run.image", "data.image");
    let path = case.host.write("images.rego", &policy);
    let ask = |listed: &str| {
        let data = json!({"image": {"digest": {"sha256": digest}}, "images": [listed]});
        let data = case.host.write("data.json", &data.to_string());
        case.verify(&["--policy", path.to_str().unwrap(), "--policy-data", data.to_str().unwrap()]).status.code()
    };
    assert_eq!(ask(&digest), Some(0));
    assert_eq!(ask(&"cd".repeat(32)), Some(4));
    let strict = fs::read_to_string(starter("strict-and-deterministic")).unwrap();
    let strict =
        strict.replace("input.receipt.assurance", "data.assurance").replace("input.run.cage.profile", "data.profile");
    let path = case.host.write("strict.rego", &strict);
    let ask = |level: &str, status: &str| {
        let source = json!({"name": "clock", "status": status});
        let data = json!({"profile": "strict", "assurance": {"level": level, "sources": [source], "execs": []}});
        let data = case.host.write("data.json", &data.to_string());
        case.verify(&["--policy", path.to_str().unwrap(), "--policy-data", data.to_str().unwrap()]).status.code()
    };
    assert_eq!(ask("D3", "controlled"), Some(0));
    assert_eq!(ask("D3", "uncontrolled"), Some(4));
    assert_eq!(ask("D2", "controlled"), Some(4));
}

#[test]
fn a_policy_that_cannot_judge_is_misuse_and_never_an_acceptance() {
    let case = Case::new();
    let judged = |text: &str| {
        let path = case.host.write("p.rego", text);
        case.verify(&["--policy", path.to_str().unwrap()])
    };
    assert_fails(&judged("package bpi\naccept := \n"), 2, "DL0724", &["p.rego"]);
    assert_fails(&judged("package other\naccept := true\n"), 2, "DL0724", &["package bpi"]);
    assert_fails(&judged("package bpi\naccept if http.send({})\n"), 2, "DL0724", &["p.rego"]);
    assert_fails(&case.verify(&["--policy", "/none.rego"]), 2, "DL0724", &["/none.rego"]);
    let data = case.host.write("data.json", "{\"bpi\": {\"accept\": true}}");
    let arguments = ["--policy", &starter("clean-exit"), "--policy-data", data.to_str().unwrap()];
    assert_fails(&case.verify(&arguments), 2, "DL0726", &["data.json", "bpi"]);
}

#[test]
fn a_policy_that_takes_too_much_memory_is_ended() {
    let case = Case::new();
    let greedy = "package bpi\nx := [s | some a in numbers.range(1, 100000); s := sprintf(\"%s%d\", [concat(\"\", [y | some b in numbers.range(1, 300); y := \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]), a])]\naccept if count(x) == 0\n";
    let path = case.host.write("greedy.rego", greedy);
    let output = case.verify(&["--policy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("DL0724") || stderr(&output).contains("DL0725"), "{}", stderr(&output));
}

#[test]
fn falsehood_comes_before_refusal_and_an_unproved_receipt_is_not_accepted() {
    let case = Case::new();
    let stranger = Host::new();
    let policy = starter("clean-exit");
    let output = case.host.run(&["verify", &case.evidence, "--trust", &stranger.trust(), "--policy", &policy]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let output = case.host.run(&["verify", &case.evidence, "--policy", &policy]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stdout(&output).contains("would accept what it says"), "{}", stdout(&output));
}

#[test]
fn the_page_holds_everything_itself_and_no_stranger_writes_it() {
    let case = Case::new();
    let output = case.verify(&["--format", "html"]);
    let page = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(page.starts_with("<!doctype html>") && page.contains("default-src 'none'"), "{page}");
    for foreign in ["<script", "<link", "<img", "http://", "https://", "url(", "@import", "<iframe"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for wanted in ["re-executed", "prefers-color-scheme:dark", "@media print", "Run-hash", "not anchored"] {
        assert!(page.contains(wanted), "{wanted}");
    }
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} is no string in {value}"))
}

/// Required members by the JSON schema of OSCAL 1.1.2 (oscal_assessment-results_schema.json, NIST).
#[test]
fn oscal_has_every_member_that_its_schema_requires() {
    let case = Case::new();
    let document = case.json(&["--format", "oscal"]);
    let results = &document["assessment-results"];
    let is_uuid = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() == 36 && matches!(bytes[14], b'4' | b'5') && matches!(bytes[19], b'8' | b'9' | b'a' | b'b')
    };
    for path in ["/uuid", "/results/0/uuid", "/back-matter/resources/0/uuid"] {
        assert!(is_uuid(text(results, path)), "{path}");
    }
    for path in [
        "/metadata/title",
        "/metadata/last-modified",
        "/metadata/version",
        "/results/0/title",
        "/results/0/description",
        "/results/0/start",
    ] {
        assert!(!text(results, path).trim().is_empty(), "{path}");
    }
    assert_eq!(text(results, "/metadata/oscal-version"), "1.1.2");
    assert_eq!(text(results, "/import-ap/href"), format!("#{}", text(results, "/back-matter/resources/0/uuid")));
    assert!(results.pointer("/results/0/reviewed-controls/control-selections/0/include-all").is_some());
    let observations = results["results"][0]["observations"].as_array().unwrap();
    assert_eq!(observations.len(), 9);
    for observation in observations {
        assert!(is_uuid(text(observation, "/uuid")) && !text(observation, "/description").is_empty());
        assert_eq!(observation["methods"], json!(["TEST"]));
        assert!(text(observation, "/collected").ends_with('Z'));
    }
    let findings = results["results"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 4, "{findings:?}");
    for finding in findings {
        assert_eq!(text(finding, "/target/type"), "objective-id");
        assert!(text(finding, "/target/target-id").starts_with("docklock-"));
        assert_eq!(text(finding, "/target/status/state"), "satisfied");
        let about = text(finding, "/related-observations/0/observation-uuid");
        assert!(observations.iter().any(|observation| text(observation, "/uuid") == about));
    }
}

/// Required attributes by OCSF 1.3.0: base event, finding, compliance finding, and the objects metadata, product, finding_info, compliance.
#[test]
fn ocsf_has_every_attribute_that_its_class_requires() {
    let case = Case::new();
    let event = case.json(&["--format", "ocsf"]);
    assert_eq!((&event["class_uid"], &event["category_uid"]), (&json!(2003), &json!(2)));
    assert_eq!((&event["activity_id"], &event["type_uid"]), (&json!(1), &json!(200_301)));
    assert!(event["time"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(event["severity_id"], json!(1));
    assert_eq!(text(&event, "/metadata/version"), "1.3.0");
    for path in ["/metadata/product/vendor_name", "/metadata/product/name", "/finding_info/uid", "/finding_info/title"]
    {
        assert!(!text(&event, path).is_empty());
    }
    assert!(!event["compliance"]["standards"].as_array().unwrap().is_empty());
    assert_eq!(event["compliance"]["status_id"], json!(1));
    let failed = case.verify(&["--format", "ocsf", "--policy", &starter("final-and-available")]);
    assert_eq!(failed.status.code(), Some(4));
    let event: Value = serde_json::from_str(&stdout(&failed)).unwrap();
    assert_eq!((&event["compliance"]["status_id"], &event["severity_id"]), (&json!(3), &json!(3)));
}

#[test]
fn signify_gets_the_receipts_own_signature() {
    let case = Case::new();
    let to = case.host.path("signify");
    let output = case.host.run(&[
        "export",
        &case.evidence,
        "--for",
        "signify",
        "--trust",
        &case.trust,
        "--to",
        to.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bundle = fs::read(format!("{}/receipt.sigstore.json", case.evidence)).unwrap();
    let evidence = Evidence::from_bytes(&bundle).unwrap();
    assert_eq!(fs::read(to.join("receipt.pae")).unwrap(), evidence.receipt().pae());
    let lines = fs::read_to_string(to.join("receipt.pae.sig")).unwrap();
    // "untrusted comment: ", then base64 of 2 + 8 + 64 bytes; of the key 2 + 8 + 32.
    let body = |text: &str| text.lines().nth(1).unwrap().to_owned();
    assert!(lines.starts_with("untrusted comment: ") && body(&lines).starts_with("RW") && body(&lines).len() == 100);
    let key = fs::read_to_string(to.join("host.pub")).unwrap();
    assert!(body(&key).starts_with("RW") && body(&key).len() == 56 && body(&key)[..13] == body(&lines)[..13]);
    let stranger = Host::new();
    let other = case.host.run(&[
        "export",
        &case.evidence,
        "--for",
        "signify",
        "--trust",
        &stranger.trust(),
        "--to",
        "/tmp/none",
    ]);
    assert_fails(&other, 2, "DL0728", &["did not sign this receipt"]);
}

#[test]
fn a_statement_for_scitt_needs_the_key_of_the_host_that_sealed() {
    let case = Case::new();
    let to = case.host.path("scitt");
    let export = |key: &[&str]| {
        let base = ["export", &case.evidence, "--for", "scitt", "--to", to.to_str().unwrap()];
        case.host.run(&[&base[..], key].concat())
    };
    assert_fails(&export(&[]), 2, "DL0727", &["--key FILE"]);
    let stranger = Host::new();
    assert_fails(&export(&["--key", stranger.path("key").to_str().unwrap()]), 2, "DL0728", &["did not sign"]);
    assert!(!to.exists());
    let made = export(&["--key", case.host.path("key").to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let bytes = fs::read(to.join("receipt.scitt.cose")).unwrap();
    assert_eq!(bytes[..2], [0xd2, 0x84]);
}

#[test]
fn the_bundle_is_what_cosign_and_npm_take() {
    let case = Case::new();
    let bundle = fs::read_to_string(format!("{}/receipt.sigstore.json", case.evidence)).unwrap();
    for form in ["cosign", "npm"] {
        assert_eq!(stdout(&case.host.run(&["export", &case.evidence, "--for", form])), bundle);
    }
    let to = case.host.path("cosign");
    let made = case.host.run(&["export", &case.evidence, "--for", "cosign", "--to", to.to_str().unwrap()]);
    assert!(made.status.success() && Path::new(&to).join("run.json").exists());
    let event = case.host.run(&["export", &case.evidence, "--for", "ocsf", "--trust", &case.trust]);
    assert!(stdout(&event).contains("\"class_uid\": 2003"), "{}", stderr(&event));
}

#[test]
fn hidden_records_and_files_are_named_and_the_rest_verifies() {
    let host = Host::new();
    let intent = host.intend("mine");
    let others = host.seal("theirs");
    let seq = host.close("mine", &intent);
    let dir = host.path("whole");
    assert!(host.run(&["receipts", "export", &seq.to_string(), dir.to_str().unwrap()]).status.success());
    let (whole, cut) = (dir.to_str().unwrap(), host.path("cut"));
    fs::write(dir.join("trace.log"), b"decisions").unwrap();
    let hide = |parts: &[&str], to: &Path| {
        let parts: Vec<&str> = parts.iter().flat_map(|part| ["--hide", part]).collect();
        host.run(&[&["redact", whole, "--to", to.to_str().unwrap()][..], &parts].concat())
    };
    let made = hide(&["chain.jsonl#others", "trace.log"], &cut);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(!cut.join("trace.log").exists());
    assert_eq!(fs::read_to_string(cut.join("chain.jsonl")).unwrap().lines().count(), 1);
    let trust = host.trust();
    let verify = |level: &str| host.run(&["verify", cut.to_str().unwrap(), "--trust", &trust, "--level", level]);
    let signed = verify("signed");
    assert_eq!(signed.status.code(), Some(0), "{}", stdout(&signed));
    let words = format!("WITHHELD     chain.jsonl, seq {}", others.seq);
    assert!(
        stdout(&signed).contains(&words) && stdout(&signed).contains("WITHHELD     trace.log"),
        "{}",
        stdout(&signed)
    );
    let chained = verify("chained");
    assert_eq!(chained.status.code(), Some(3), "{}", stdout(&chained));
    assert!(stdout(&chained).contains("NOT CHECKED  chain without gaps   withheld: "), "{}", stdout(&chained));
    let json: Value =
        serde_json::from_str(&stdout(&host.run(&["verify", cut.to_str().unwrap(), "--format", "json"]))).unwrap();
    assert_eq!(json["withheld"].as_array().unwrap().len(), 3);
    // Put back what was withheld: now one of the two lies.
    fs::write(cut.join("trace.log"), b"decisions").unwrap();
    assert_fails(&verify("signed"), 2, "DL0702", &["trace.log", "lies beside it"]);
    let never = host.path("never");
    for (part, words) in [
        ("receipt.sigstore.json", "signed as a whole"),
        ("run.json", "hide nothing"),
        ("run.inputs", "no part that can be hidden"),
        ("config.json", "no such file"),
        ("trace.log#x", "all its bytes"),
        ("chain.jsonl#99", "no such record"),
    ] {
        assert_fails(&hide(&[part], &never), 2, "DL0729", &[words]);
        assert!(!never.exists());
    }
}
