//! The built `docklock`, as an operator or a script meets it: exit statuses, sentences, JSON.

#![allow(clippy::unwrap_used)]

mod acceptance;
mod anchored;
mod containers;
mod host;
mod instructions;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anchored::Anchored;
use host::{Host, assert_fails, stderr, stdout};

#[test]
fn the_version_names_a_commit() {
    let output = Host::new().run(&["--version"]);
    let text = stdout(&output);
    assert!(text.starts_with("docklock 0.1.0 (") && text.trim_end().ends_with(')'), "{text}");
}

#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let host = Host::new();
    for name in [
        "run",
        "verify",
        "explain",
        "diff",
        "rerun",
        "receipts",
        "keygen",
        "doctor",
        "profiles",
        "oci",
        "completion",
        "man",
    ] {
        let output = host.run(&[name, "--help"]);
        let text = stdout(&output);
        assert!(
            output.status.success() && text.contains("Example") && text.contains(&format!("docklock {name}")),
            "{name}: {text}"
        );
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let host = Host::new();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["verify"],
        &["verify", "x", "--level", "holy"],
        &["receipts", "list", "--boundary", "../x"],
    ] {
        assert_eq!(host.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn manual_pages_and_completions_cover_every_subcommand() {
    let host = Host::new();
    let dir = host.path("man");
    assert!(host.run(&["man", dir.to_str().unwrap()]).status.success());
    let page = fs::read_to_string(dir.join("docklock-verify.1")).unwrap();
    assert!(page.contains("refused by policy"), "{page}");
    assert!(dir.join("docklock-receipts-gaps.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&host.run(&["completion", shell])).contains("receipts"), "{shell}");
    }
}

#[test]
fn a_reader_that_hangs_up_is_no_failure() {
    let host = Host::new();
    let mut child =
        host.command(&["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn keygen_makes_a_private_and_a_public_key_and_never_replaces_one() {
    let host = Host::new();
    let key = host.path("etc/new.key");
    let arguments = ["keygen", "--key-file", key.to_str().unwrap(), "--format", "json"];
    let made: serde_json::Value = serde_json::from_str(&stdout(&host.run(&arguments))).unwrap();
    assert!(made["keyid"].as_str().unwrap().starts_with("SHA256:"));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(made["publicKeyFile"].as_str().unwrap()).unwrap().contains("BEGIN PUBLIC KEY"));
    assert_fails(&host.run(&arguments), 1, "DL0207", &["new.key", "not overwritten"]);
}

#[test]
fn keygen_without_a_path_uses_the_configured_one() {
    let host = Host::new();
    let config = host.write("other.toml", &format!("key_file = {:?}\n", host.path("deep/er/host.key")));
    let output = host.run(&["--config", config.to_str().unwrap(), "keygen"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(host.path("deep/er/host.key.pub.pem").exists());
}

#[test]
fn a_configuration_that_cannot_be_used_is_named_with_what_is_wrong() {
    let host = Host::new();
    let check = |text: &str| {
        let path = host.write("bad.toml", text);
        host.run(&["config", "check", "--config", path.to_str().unwrap()])
    };
    assert_fails(&check("log_level = \"info\"\nspol_dir = \"/x\"\n"), 2, "DL0103", &["bad.toml", "line 2", "spol_dir"]);
    assert_fails(&check("key_file = 7"), 2, "DL0103", &["bad.toml", "line 1"]);
    assert_fails(&check("= ="), 2, "DL0103", &["bad.toml", "line 1"]);
    assert_fails(&check("spool_dir = \"here\""), 2, "DL0104", &["spool_dir", "\"here\"", "absolute"]);
    assert_fails(&check("log_level = \"loud\""), 2, "DL0104", &["log_level", "\"loud\"", "debug"]);
    assert_fails(&check(&"#".repeat(70_000)), 2, "DL0102", &["bad.toml", "65536"]);
    assert_fails(&host.run(&["config", "check", "--config", "/none.toml"]), 2, "DL0101", &["/none.toml", "--config"]);
}

#[test]
fn the_configuration_in_force_can_be_printed_and_read_back() {
    let host = Host::new();
    let printed = stdout(&host.run(&["config", "check", "--print"]));
    let again = host.write("again.toml", &printed);
    let output = host.run(&["config", "check", "--config", again.to_str().unwrap(), "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["config"]["spool_dir"], host.path("spool").to_str().unwrap());
    assert_eq!(json["source"], again.to_str().unwrap());
}

#[test]
fn good_evidence_passes_and_says_so_to_people_and_programs() {
    let host = Host::new();
    let evidence = host.evidence("demo");
    let trust = host.trust();
    let output = host.run(&["verify", &evidence, "--trust", &trust]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("PASS         signature") && text.contains("PASS         chain"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&host.run(&["verify", &evidence, "--trust", &trust, "--format", "json"])))
            .unwrap();
    assert_eq!((&json["exitCode"], &json["rows"][0]["status"]), (&0.into(), &"PASS".into()));
    let bundle = format!("{evidence}/receipt.sigstore.json");
    assert_eq!(host.run(&["verify", &bundle, "--trust", &trust, "--level", "signed"]).status.code(), Some(0));
}

#[test]
fn a_level_that_the_evidence_cannot_reach_is_incomplete() {
    let host = Host::new();
    let evidence = host.evidence("demo");
    let trust = host.trust();
    assert_eq!(host.run(&["verify", &evidence, "--trust", &trust, "--level", "final"]).status.code(), Some(3));
    assert_eq!(host.run(&["verify", &evidence]).status.code(), Some(3));
    let bundle = format!("{evidence}/receipt.sigstore.json");
    assert_eq!(host.run(&["verify", &bundle, "--trust", &trust]).status.code(), Some(3));
}

#[test]
fn evidence_with_a_proof_of_finality_is_final_for_who_trusts_the_chain() {
    let host = Host::new();
    let evidence = host.evidence("demo");
    let anchored = Anchored::new(&evidence);
    fs::write(format!("{evidence}/finality.bin"), anchored.proof.to_bytes()).unwrap();
    let trust = |chains: serde_json::Value| {
        let key = fs::read_to_string(host.trust()).unwrap();
        let hosts = serde_json::json!([{ "id": "spiffe://bpi.local/host/test", "publicKey": key }]);
        let file = serde_json::json!({ "hosts": hosts, "chains": chains });
        host.write("trust.json", &file.to_string()).to_str().unwrap().to_owned()
    };
    let judge = |trust: &str| host.run(&["verify", &evidence, "--trust", trust, "--level", "included"]);
    let believed = judge(&trust(anchored.chains()));
    assert_eq!(believed.status.code(), Some(0), "{}{}", stdout(&believed), stderr(&believed));
    let row =
        format!("PASS         finality             final at height 1 of chain {} by 1 of 1", anchored.proof.chain);
    assert!(stdout(&believed).contains(&row), "{}", stdout(&believed));
    let unknown = judge(&host.trust());
    assert_eq!(unknown.status.code(), Some(3), "{}", stdout(&unknown));
    assert!(stdout(&unknown).contains("the trust file names no chain"), "{}", stdout(&unknown));
    let mut other = anchored.chains();
    other[0]["id"] = "00".repeat(32).into();
    let other = judge(&trust(other));
    assert_eq!(other.status.code(), Some(1), "{}", stdout(&other));
    assert!(stdout(&other).contains("false: finality: wrong chain: "), "{}", stdout(&other));
    fs::remove_file(format!("{evidence}/finality.bin")).unwrap();
    let missing = judge(&trust(anchored.chains()));
    assert_eq!(missing.status.code(), Some(3));
    assert!(stdout(&missing).contains("NOT CHECKED  finality             not anchored: "), "{}", stdout(&missing));
    fs::write(format!("{evidence}/finality.bin"), b"no proof").unwrap();
    assert_fails(&judge(&trust(anchored.chains())), 2, "DL0702", &["finality.bin"]);
    assert_fails(&judge(&trust(serde_json::json!([{ "id": "7" }]))), 2, "DL0704", &["chain id", "64 hexadecimal"]);
}

#[test]
fn a_wrong_key_a_tampered_payload_and_a_bad_path_are_three_sentences() {
    let host = Host::new();
    let evidence = host.evidence("demo");
    let trust = host.trust();
    let stranger = Host::new();
    let wrong_key = host.run(&["verify", &evidence, "--trust", &stranger.trust()]);
    let run_json = format!("{evidence}/run.json");
    let honest = fs::read_to_string(&run_json).unwrap();
    fs::write(&run_json, honest.replace("\"exitCode\":0", "\"exitCode\":1")).unwrap();
    let tampered = host.run(&["verify", &evidence, "--trust", &trust]);
    let bad_path = host.run(&["verify", "/no/such/evidence", "--trust", &trust]);
    // A stranger's key proves nothing: the honest key may just not be trusted here.
    assert!(matches!(wrong_key.status.code(), Some(1 | 3)), "{}", stdout(&wrong_key));
    assert_eq!(tampered.status.code(), Some(1), "{}", stdout(&tampered));
    assert_fails(&bad_path, 2, "DL0701", &["/no/such/evidence"]);
    let sentences: BTreeSet<String> = [stdout(&wrong_key), stdout(&tampered), stderr(&bad_path)]
        .map(|text| text.lines().last().unwrap().to_owned())
        .into();
    assert_eq!(sentences.len(), 3, "{sentences:?}");
}

#[test]
fn what_is_no_evidence_or_no_trust_file_is_status_2_with_its_own_sentence() {
    let host = Host::new();
    let evidence = host.evidence("demo");
    let trust = host.trust();
    let garbage = host.write("garbage", "{\"payload\":1}");
    let empty = host.path("empty");
    fs::create_dir(&empty).unwrap();
    assert_fails(&host.run(&["verify", garbage.to_str().unwrap(), "--trust", &trust]), 2, "DL0702", &["garbage"]);
    assert_fails(
        &host.run(&["verify", empty.to_str().unwrap(), "--trust", &trust]),
        2,
        "DL0702",
        &["receipt.sigstore.json"],
    );
    assert_fails(&host.run(&["explain", garbage.to_str().unwrap()]), 2, "DL0702", &["garbage"]);
    assert_fails(&host.run(&["verify", &evidence, "--trust", "/none.pem"]), 2, "DL0703", &["/none.pem"]);
    assert_fails(&host.run(&["verify", &evidence, "--trust", garbage.to_str().unwrap()]), 2, "DL0704", &["garbage"]);
    let private = host.path("key");
    assert_fails(
        &host.run(&["verify", &evidence, "--trust", private.to_str().unwrap()]),
        2,
        "DL0704",
        &["private key"],
    );
    let pipe = host.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert_fails(
        &host.run(&["verify", pipe.to_str().unwrap(), "--trust", &trust]),
        2,
        "DL0701",
        &["not a regular file"],
    );
}

#[test]
fn explain_tells_what_ran() {
    let host = Host::new();
    let page = stdout(&host.run(&["explain", &host.evidence("demo")]));
    assert!(page.contains("demo") && page.contains("standard"), "{page}");
}

#[test]
fn a_record_of_this_host_is_explained_and_compared_by_its_name() {
    let host = Host::new();
    host.seal("demo");
    host.seal("other");
    assert!(stdout(&host.run(&["explain", "demo"])).contains("Container demo"));
    assert!(stdout(&host.run(&["explain", "3"])).contains("Container other"));
    host.intend("busy");
    assert!(stdout(&host.run(&["explain", "busy"])).contains("announcement only"));
    let same = host.run(&["diff", "demo", "other"]);
    assert_eq!((same.status.code(), stdout(&same).contains("same: nothing differs")), (Some(0), true));
    assert_fails(&host.run(&["diff", "demo", "busy"]), 2, "DL0702", &["intent"]);
    assert_fails(&host.run(&["explain", "nobody"]), 1, "DL0312", &["nobody"]);
}

#[test]
fn two_logs_part_at_a_decision_that_is_named() {
    let host = Host::new();
    let log = |name: &str, result: i64| {
        let mut bytes = b"DLTRACE1".to_vec();
        for (call, result) in [(228_i32, 0_i64), (202, result)] {
            bytes.extend(3_u32.to_le_bytes());
            bytes.extend(call.to_le_bytes());
            bytes.extend(1_640_995_200_000_000_000_u64.to_le_bytes());
            bytes.extend(result.to_le_bytes());
            bytes.extend([0; 16]);
        }
        let path = host.path(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, same, other) = (log("one", 0), log("same", 0), log("other", -110));
    assert_eq!(host.run(&["diff", &one, &same]).status.code(), Some(0));
    let parted = host.run(&["diff", &one, &other]);
    let text = stdout(&parted);
    assert_eq!(parted.status.code(), Some(5), "{text}");
    assert!(text.contains("both   task 3: clock_gettime(0x0, 0x0) = 0 at 1640995200.000000000"), "{text}");
    assert!(text.contains("right  task 3: futex(0x0, 0x0) = -110"), "{text}");
    assert!(text.trim_end().ends_with("different: decision 1 is the first that differs"), "{text}");
    fs::write(host.path("torn"), b"DLTRACE1abc").unwrap();
    assert_fails(&host.run(&["diff", &one, host.path("torn").to_str().unwrap()]), 2, "DL0901", &["cut off"]);
}

#[test]
fn receipts_are_listed_shown_and_whole() {
    let host = Host::new();
    host.seal("demo");
    host.seal("other");
    let list = stdout(&host.run(&["receipts", "list"]));
    assert_eq!(list.lines().count(), 5, "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&host.run(&["receipts", "list", "--newest", "1", "--format", "json"]))).unwrap();
    assert_eq!(
        (&json[0]["seq"], &json[0]["kind"], &json[0]["containerId"]),
        (&3.into(), &"receipt".into(), &"other".into())
    );
    let shown: serde_json::Value =
        serde_json::from_str(&stdout(&host.run(&["receipts", "show", "demo", "--format", "json"]))).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!(shown[1]["predicate"]["run"]["result"]["exitCode"], 0);
    assert!(stdout(&host.run(&["receipts", "show", "1"])).contains("kind: receipt"));
    let gaps = host.run(&["receipts", "gaps"]);
    assert_eq!((gaps.status.code(), stdout(&gaps).contains("every intent is closed")), (Some(0), true));
}

#[test]
fn a_removed_record_is_a_gap_and_status_1() {
    let host = Host::new();
    host.seal("demo");
    host.seal("other");
    fs::remove_file(host.path("spool/local/records/000000000001.json")).unwrap();
    let output = host.run(&["receipts", "gaps"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("record 1 is missing"), "{}", stdout(&output));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&host.run(&["receipts", "gaps", "--format", "json"]))).unwrap();
    assert_eq!((&json["whole"], &json["gaps"][0]["boundary"]), (&false.into(), &"local".into()));
}

#[test]
fn what_is_not_there_to_show_or_export_is_named() {
    let host = Host::new();
    host.seal("demo");
    host.intend("busy");
    let target = host.path("target");
    let target = target.to_str().unwrap();
    assert_fails(&host.run(&["receipts", "show", "nobody"]), 1, "DL0312", &["nobody", "receipts list"]);
    assert_fails(&host.run(&["receipts", "show", "99"]), 1, "DL0312", &["99"]);
    assert_fails(&host.run(&["receipts", "list", "--boundary", "k8s.io"]), 1, "DL0302", &["k8s.io"]);
    assert_fails(&host.run(&["receipts", "export", "busy", target]), 1, "DL0707", &["intent"]);
    assert_fails(
        &host.run(&["receipts", "export", "demo", host.path("spool").to_str().unwrap()]),
        1,
        "DL0706",
        &["spool"],
    );
    assert!(!host.path("target").exists());
    fs::write(host.path("spool/local/records/000000000001.json"), "{}").unwrap();
    assert_fails(&host.run(&["receipts", "show", "1"]), 1, "DL0305", &["000000000001.json"]);
}

#[test]
fn a_container_id_cannot_write_to_the_terminal() {
    let host = Host::new();
    host.seal("evil\u{1b}[2J");
    for arguments in [&["receipts", "list"][..], &["receipts", "show", "1"]] {
        let text = stdout(&host.run(arguments));
        assert!(text.contains("evil") && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn profiles_are_listed_with_digests_and_a_broken_one_is_named() {
    let host = Host::new();
    let list = stdout(&host.run(&["profiles", "list"]));
    assert!(["strict", "standard", "service"].iter().all(|name| list.contains(name)), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&host.run(&["profiles", "show", "standard", "--format", "json"]))).unwrap();
    assert_eq!(json["digest"].as_str().unwrap().len(), 64);
    assert_fails(&host.run(&["profiles", "show", "lax"]), 1, "DL0709", &["lax", "lax.toml"]);
    assert_fails(&host.run(&["profiles", "show", "../key"]), 1, "DL0709", &["no path"]);
    host.write("profiles/lax.toml", "nonsense = 1\n");
    assert_fails(&host.run(&["profiles", "list"]), 1, "DL0709", &["lax.toml", "nonsense"]);
}

#[test]
fn doctor_names_each_fence_for_people_and_programs() {
    let host = Host::new();
    let text = stdout(&host.run(&["doctor"]));
    assert!(["seccomp", "landlock", "apparmor", "cgroups"].iter().all(|name| text.contains(name)), "{text}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&host.run(&["doctor", "--format", "json"]))).unwrap();
    assert!(json["host"]["kernel"].is_string() && json["canRun"].is_boolean(), "{json}");
}

#[test]
fn a_run_without_a_usable_key_or_bundle_is_125_and_leaves_nothing() {
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "true"]);
    let run = |extra: &[&str]| host.run(&[&["run", "--bundle", bundle.to_str().unwrap()][..], extra].concat());
    fs::set_permissions(host.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(&run(&[]), 125, "DL0205", &["0644", "chmod 600"]);
    fs::remove_file(host.path("key")).unwrap();
    assert_fails(&run(&[]), 125, "DL0201", &["docklock keygen"]);
    fs::write(host.path("key"), "not a key").unwrap();
    fs::set_permissions(host.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_fails(&run(&[]), 125, "DL0206", &["PKCS#8"]);
    assert_fails(&host.run(&["run", "--bundle", "/no/bundle"]), 125, "DL0717", &["/no/bundle/config.json"]);
    assert_fails(&run(&["--receipt-dir", bundle.to_str().unwrap()]), 125, "DL0706", &["bundle"]);
    assert!(!host.path("spool").exists(), "nothing was intended");
}

#[test]
fn oci_commands_about_a_container_that_is_not_there_say_so() {
    let host = Host::new();
    for arguments in
        [&["oci", "state", "x"][..], &["oci", "start", "x"], &["oci", "kill", "x", "TERM"], &["oci", "delete", "x"]]
    {
        assert_fails(&host.run(arguments), 1, "DL0710", &["\"x\"", "oci list"]);
    }
    assert_fails(&host.run(&["oci", "kill", "x", "LOUD"]), 2, "DL0712", &["LOUD", "1 to 64"]);
    assert_fails(&host.run(&["oci", "state", "../x"]), 1, "DL0803", &["../x"]);
    assert!(host.run(&["oci", "delete", "--force", "x"]).status.success());
}

#[test]
fn oci_failures_also_go_to_the_log_file_in_the_form_engines_read() {
    let host = Host::new();
    let log = host.path("log.json");
    let output = host.run(&["oci", "--log", log.to_str().unwrap(), "--log-format", "json", "state", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("DL0710"), "{line}");
}

#[test]
fn a_link_called_docklock_oci_is_the_oci_command_line() {
    let host = Host::new();
    let link = host.path("docklock-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_docklock"), &link).unwrap();
    let output = Command::new(&link).arg("features").output().unwrap();
    let features: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

#[test]
fn oci_spec_writes_a_config_once() {
    let host = Host::new();
    let dir = host.path("bundle2");
    fs::create_dir(&dir).unwrap();
    let arguments = ["oci", "spec", "--bundle", dir.to_str().unwrap()];
    assert!(host.run(&arguments).status.success());
    assert_fails(&host.run(&arguments), 1, "DL0706", &["config.json"]);
}

#[test]
fn every_code_in_the_sources_is_explained_and_every_explained_code_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let explained = codes(&fs::read_to_string(root.join("../docs/errors.md")).unwrap());
    let mut used = BTreeSet::new();
    collect(&root.join("src"), &mut used);
    assert_eq!(used.difference(&explained).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/errors.md");
    assert_eq!(explained.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "in docs/errors.md only");
}

fn collect(dir: &std::path::Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(codes(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// Every `DL` with four digits.
fn codes(text: &str) -> BTreeSet<String> {
    let is_code = |code: &str| code.len() == 6 && code[2..].bytes().all(|byte| byte.is_ascii_digit());
    text.match_indices("DL")
        .filter_map(|(at, _)| text.get(at..at + 6))
        .filter(|code| is_code(code))
        .map(str::to_owned)
        .collect()
}
