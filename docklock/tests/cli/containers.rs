//! Real containers by `docklock run` and `docklock oci`. Skipped, with the reason, for who is not root or has no static busybox.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpi_policies::Policy;
use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::evidence::Evidence;
use bpi_protocol::run::Image;
use docklock::cage::{self, PlanRequest};
use docklock::host::HostCapabilities;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::host::{Host, assert_fails, stderr, stdout};

/// Why real containers cannot run here, if so.
pub(crate) fn cannot_run() -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        "only root can make containers"
    } else if !Path::new("/bin/busybox").exists() {
        "/bin/busybox (Debian: busybox-static) is missing"
    } else {
        return false;
    };
    eprintln!("skipped: {reason}");
    true
}

#[test]
fn a_bundle_runs_and_its_evidence_verifies() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let evidence = host.path("evidence");
    let evidence = evidence.to_str().unwrap();
    let output =
        host.run(&["run", "--quiet", "--bundle", bundle.to_str().unwrap(), "--id", "demo", "--receipt-dir", evidence]);
    assert_eq!((output.status.code(), stdout(&output).as_str(), stderr(&output).as_str()), (Some(7), "out\n", "err\n"));
    let verified = host.run(&["verify", evidence, "--trust", &host.trust()]);
    assert_eq!(verified.status.code(), Some(0), "{}", stdout(&verified));
    let run: serde_json::Value = serde_json::from_slice(&fs::read(format!("{evidence}/run.json")).unwrap()).unwrap();
    assert_eq!((&run["result"]["exitCode"], &run["result"]["stdout"]["bytes"]), (&7.into(), &4.into()));
    assert!(host.run(&["receipts", "gaps"]).status.success());
}

#[test]
fn a_spool_that_cannot_be_written_means_that_nothing_starts_and_nothing_is_left() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "touch", "/ran"]);
    // A file where the spool's folder should be.
    host.write("spool", "");
    let output = host.run(&["run", "--quiet", "--bundle", bundle.to_str().unwrap(), "--id", "demo"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("DL0304") && stderr(&output).contains("spool"), "{}", stderr(&output));
    assert!(!bundle.join("rootfs/ran").exists());
    assert!(!host.path("state/local/demo").exists());
}

#[test]
fn an_oci_container_lives_from_create_to_delete() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "sleep", "1000"]);
    let bundle = bundle.to_str().unwrap();
    let pid_file = host.path("pid");
    // The streams of `create` are the container's: a pipe would not end before it does.
    let oci = |arguments: &[&str]| {
        let mut command = host.command(&[&["oci"], arguments].concat());
        command.stdin(Stdio::null());
        if arguments[0] == "create" {
            command.stdout(Stdio::null());
        }
        command.output().unwrap()
    };
    let status = || {
        let state: serde_json::Value = serde_json::from_str(&stdout(&oci(&["state", "one"]))).unwrap();
        state["status"].as_str().unwrap().to_owned()
    };
    let create = |id: &str| {
        let arguments = ["oci", "create", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), id];
        host.command(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    };
    assert!(create("one").success());
    assert!(fs::read_to_string(&pid_file).unwrap().parse::<u32>().is_ok());
    assert_eq!(status(), "created");
    assert_eq!(create("one").code(), Some(1), "the id is taken");
    assert_fails(&oci(&["delete", "one"]), 1, "DL0711", &["created", "--force"]);
    assert!(oci(&["start", "one"]).status.success());
    assert_eq!(status(), "running");
    assert_eq!(oci(&["start", "one"]).status.code(), Some(1));
    assert!(oci(&["pause", "one"]).status.success());
    assert_eq!(status(), "paused");
    assert!(oci(&["resume", "one"]).status.success());
    assert!(oci(&["kill", "one", "KILL"]).status.success());
    while status() != "stopped" {
        std::thread::yield_now();
    }
    assert_fails(&oci(&["kill", "one", "KILL"]), 1, "DL0711", &["stopped"]);
    assert!(oci(&["delete", "one"]).status.success());
    assert_fails(&oci(&["state", "one"]), 1, "DL0710", &["one"]);
    let list = stdout(&host.run(&["receipts", "list"]));
    assert!(list.contains("killed by signal 9"), "{list}");
    assert!(host.run(&["receipts", "gaps"]).status.success());
    assert!(!host.path("state/.oci/one").exists() && !host.path("state/local/one").exists());
}

#[test]
fn oci_create_tells_why_it_failed_and_leaves_nothing() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "true"]);
    fs::remove_file(host.path("key")).unwrap();
    let output = host.run(&["oci", "create", "--bundle", bundle.to_str().unwrap(), "one"]);
    assert_fails(&output, 1, "DL0201", &["docklock keygen"]);
    assert!(!host.path("state/.oci/one").exists());
}

#[test]
fn oci_run_ends_with_the_status_of_its_process() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "sh", "-c", "echo hello; exit 3"]);
    let output = host
        .command(&["oci", "run", "--bundle", bundle.to_str().unwrap(), "two"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(3), "hello\n"), "{}", stderr(&output));
    assert!(stdout(&host.run(&["oci", "list", "--quiet"])).is_empty());
}

#[test]
fn a_signal_to_run_reaches_the_container() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let script = "trap 'exit 42' TERM; echo ready; while true; do /bin/busybox sleep 1; done";
    let bundle = host.bundle(&["/bin/busybox", "sh", "-c", script]);
    let arguments = ["run", "--quiet", "--bundle", bundle.to_str().unwrap()];
    let mut child = host.command(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

#[test]
fn a_terminal_bundle_sees_a_terminal_and_its_output_is_hashed() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.terminal_bundle(&["/bin/busybox", "sh", "-c", "[ -t 0 ] && [ -t 1 ] && echo a terminal"]);
    let evidence = host.path("evidence");
    let arguments =
        ["run", "--quiet", "--bundle", bundle.to_str().unwrap(), "--receipt-dir", evidence.to_str().unwrap()];
    let output = host.command(&arguments).stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "a terminal\r\n"), "{}", stderr(&output));
    let run: serde_json::Value = serde_json::from_slice(&fs::read(evidence.join("run.json")).unwrap()).unwrap();
    assert_eq!(run["result"]["stdout"]["bytes"], 12);
}

#[test]
fn oci_create_hands_the_terminal_to_the_console_socket() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.terminal_bundle(&["/bin/busybox", "echo", "through the socket"]);
    let bundle = bundle.to_str().unwrap();
    assert_fails(&host.run(&["oci", "create", "--bundle", bundle, "tty"]), 2, "DL0714", &["--console-socket"]);
    let socket = host.path("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let arguments = ["oci", "create", "--bundle", bundle, "--console-socket", socket.to_str().unwrap(), "tty"];
    let output = host.command(&arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let (stream, _) = listener.accept().unwrap();
    let (_, mut fds) = docklock::kernel::receive_with_fds(stream.as_fd(), 64).unwrap();
    let master = fs::File::from(fds.pop().unwrap());
    let started = host.run(&["oci", "start", "tty"]);
    assert!(started.status.success(), "{}", stderr(&started));
    let mut line = String::new();
    BufReader::new(master).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "through the socket");
    let deleted = host.run(&["oci", "delete", "--force", "tty"]);
    assert!(deleted.status.success(), "{}", stderr(&deleted));
}

#[test]
fn a_monitor_that_is_killed_takes_its_container_along_and_its_intent_is_closed() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let bundle = host.bundle(&["/bin/busybox", "sleep", "1000"]);
    let pid_file = host.path("pid");
    let arguments =
        ["oci", "create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap(), "gone"];
    let created =
        host.command(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(created.success());
    assert!(host.run(&["oci", "start", "gone"]).status.success());
    let container = fs::read_to_string(&pid_file).unwrap();
    let status = fs::read_to_string(format!("/proc/{container}/status")).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{container}")).exists() || !host.run(&["receipts", "gaps"]).status.success() {
        assert!(Instant::now() < deadline, "{}", stdout(&host.run(&["receipts", "gaps"])));
    }
    let list = stdout(&host.run(&["receipts", "list"]));
    assert!(list.contains("abort") && list.contains("ended before the run was sealed"), "{list}");
    assert_fails(&host.run(&["oci", "state", "gone"]), 1, "DL0718", &["oci delete gone"]);
    assert!(stdout(&host.run(&["oci", "list"])).contains("stopped"));
    let deleted = host.run(&["oci", "delete", "gone"]);
    assert!(deleted.status.success(), "{}", stderr(&deleted));
    assert!(!host.path("state/.oci/gone").exists() && !host.path("state/local/gone").exists());
}

/// A folder with a busybox and links to it.
fn root_of(host: &Host) -> String {
    let root = host.path("root");
    if root.exists() {
        return root.to_str().unwrap().to_owned();
    }
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "id", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    root.to_str().unwrap().to_owned()
}

/// `docklock run --rootfs` under a profile that every host can enforce, with an empty standard input.
fn run_in(host: &Host, options: &[&str], script: &str) -> std::process::Output {
    let root = root_of(host);
    let arguments =
        [&["run", "--profile", "service", "--rootfs", &root][..], options, &["--", "/bin/sh", "-c", script]].concat();
    host.command(&arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_program_runs_in_a_root_file_system_that_stays_as_it_is() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let kept = host.path("kept");
    let script = "echo new > /file; echo $A; pwd; id -u";
    let options = ["--quiet", "--env", "A=1", "--workdir", "/bin", "--user", "7", "--out", kept.to_str().unwrap()];
    let refused = run_in(&host, &options, script);
    assert_eq!(stdout(&refused), "1\n/bin\n7\n", "user 7 may not write to /: {}", stderr(&refused));
    fs::remove_dir_all(&kept).unwrap();
    let output = run_in(&host, &["--quiet", "--out", kept.to_str().unwrap()], script);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "\n/\n0\n"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "new\n");
    assert!(!host.path("root/file").exists());
    assert_fails(&run_in(&host, &["--out", kept.to_str().unwrap()], "true"), 125, "DL0706", &["kept"]);
    assert_fails(&run_in(&host, &["--user", "nobody"], "true"), 125, "DL0720", &["nobody"]);
    let missing = host.run(&["run", "--rootfs", "/no/such", "--", "true"]);
    assert_fails(&missing, 125, "DL0705", &["/no/such"]);
}

#[test]
fn a_measured_root_file_system_is_an_image_in_the_receipt() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let evidence = host.path("evidence");
    let output = run_in(&host, &["--quiet", "--pin", "--receipt-dir", evidence.to_str().unwrap()], "true");
    assert!(output.status.success(), "{}", stderr(&output));
    let run: serde_json::Value = serde_json::from_slice(&fs::read(evidence.join("run.json")).unwrap()).unwrap();
    assert_eq!(run["image"]["mediaType"], "application/vnd.bpi.rootfs.listing.v1");
    let verified = stdout(&host.run(&["verify", evidence.to_str().unwrap(), "--trust", &host.trust()]));
    assert!(verified.contains("D1, schedule host; uncontrolled: "), "{verified}");
}

#[test]
fn two_runs_that_differ_are_status_5_and_told_where_and_equal_ones_keep_their_status() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let equal = run_in(&host, &["--twice"], "echo out; echo x > /file; exit 3");
    assert_eq!((equal.status.code(), stdout(&equal).as_str()), (Some(3), "out\n"), "{}", stderr(&equal));
    assert!(stderr(&equal).contains("same: nothing differs"), "{}", stderr(&equal));
    let differ = run_in(&host, &["--twice"], "cat /proc/sys/kernel/random/uuid > /file");
    assert_eq!(differ.status.code(), Some(5), "{}", stderr(&differ));
    let text = stderr(&differ);
    assert!(text.contains("changed: /file") && text.contains("different: first in outputs"), "{text}");
    let json = run_in(&host, &["--twice", "--format", "json"], "echo same");
    let found: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&found["same"], json.status.code()), (&true.into(), Some(0)));
}

#[test]
fn of_many_seeds_those_that_fail_are_named_and_their_output_is_shown() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let good = run_in(&host, &["--seeds", "1..3"], "echo hidden");
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    let text = stdout(&good);
    assert!(text.contains("seed 3: exited 0") && text.contains("all 3 seeds") && !text.contains("hidden"), "{text}");
    assert!(stderr(&good).contains("a seed changes nothing"), "{}", stderr(&good));
    let bad = run_in(&host, &["--seeds", "5..6", "--format", "json"], "exit 9");
    let found: serde_json::Value = serde_json::from_str(&stdout(&bad)).unwrap();
    assert_eq!((bad.status.code(), &found["failed"]), (Some(9), &serde_json::json!([5, 6])));
    assert_eq!(host.run(&["run", "--seeds", "3..1", "--rootfs", "/", "--", "x"]).status.code(), Some(2));
}

/// Runs a bundle once under the profile `service` and returns its evidence.
fn first_run(host: &Host, script: &str, options: &[&str]) -> String {
    let bundle = host.bundle(&["/bin/busybox", "sh", "-c", script]);
    let evidence = host.path("first").to_str().unwrap().to_owned();
    let fixed = ["run", "--quiet", "--profile", "service", "--bundle", bundle.to_str().unwrap(), "--receipt-dir"];
    let output = host.command(&[&fixed[..], &[&evidence], options].concat()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    evidence
}

#[test]
fn a_rerun_has_the_same_run_hash_and_one_that_cannot_be_is_status_3_and_says_why() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let evidence = first_run(&host, "echo hello", &["--pin"]);
    let bundle = host.path("bundle");
    let rerun = |extra: &[&str]| host.run(&[&["rerun", &evidence][..], extra].concat());
    let same = rerun(&["--bundle", bundle.to_str().unwrap()]);
    assert_eq!(same.status.code(), Some(0), "{}{}", stdout(&same), stderr(&same));
    assert!(stdout(&same).contains("rerun: the same run-hash"), "{}", stdout(&same));
    // The kernel scheduled it, so nobody has kept its configuration.
    let rootfs = bundle.join("rootfs");
    let rootfs = rootfs.to_str().unwrap();
    assert_fails(&rerun(&["--rootfs", rootfs]), 3, "DL0903", &["--spec"]);
    assert_fails(&rerun(&[]), 3, "DL0906", &["--rootfs"]);
    let spec = host.write("spec.json", "{}");
    assert_fails(&rerun(&["--rootfs", rootfs, "--spec", spec.to_str().unwrap()]), 3, "DL0904", &["the receipt names"]);
    fs::write(bundle.join("rootfs/more"), "").unwrap();
    let other = rerun(&["--bundle", bundle.to_str().unwrap()]);
    assert_fails(&other, 3, "DL0905", &["root file system"]);
    assert_eq!(host.run(&["rerun", &evidence, "--rootfs", "/", "--bundle", "/"]).status.code(), Some(2));
    assert_fails(&host.run(&["rerun", "nobody"]), 1, "DL0312", &["nobody"]);
}

#[test]
fn a_rerun_that_differs_is_status_5_and_names_what_differs() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let evidence = first_run(&host, "cat /proc/sys/kernel/random/uuid", &["--pin"]);
    let bundle = host.path("bundle");
    let output = host.run(&["rerun", &evidence, "--bundle", bundle.to_str().unwrap(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(found["difference"]["differ"][0]["member"], "result.stdout.digest");
    assert_ne!(found["runHash"], found["rerunHash"]);
    let diff = host.run(&["diff", &evidence, &format!("{evidence}/run.json")]);
    assert_eq!((diff.status.code(), stdout(&diff).contains("same: nothing differs")), (Some(0), true));
    assert_fails(&host.run(&["diff", &evidence, host.path("key").to_str().unwrap()]), 2, "DL0723", &["another kind"]);
}

/// An image of a root file system in two layers, the second of which hides `/gone`: its OCI layout as a tar, and its manifest's digest.
fn image(host: &Host, rootfs: &Path) -> (String, Sha256Digest) {
    let layout = host.path("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let tar = |options: &[&str], from: &Path, to: &Path| {
        let status =
            Command::new("tar").args(options).arg("--file").arg(to).arg("--directory").arg(from).arg(".").status();
        assert!(status.unwrap().success());
    };
    let put = |bytes: &[u8], kind: &str| {
        let digest = Sha256Digest::of(bytes);
        fs::write(blobs.join(digest.to_string()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        (
            digest,
            serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }),
        )
    };
    let layer = |from: &Path| {
        let path = host.path("layer.tar.gz");
        tar(&["--create", "--gzip"], from, &path);
        put(&fs::read(&path).unwrap(), "layer.v1.tar+gzip").1
    };
    fs::write(rootfs.join("gone"), "").unwrap();
    let below = layer(rootfs);
    fs::remove_file(rootfs.join("gone")).unwrap();
    let hiding = host.path("hiding");
    fs::create_dir(&hiding).unwrap();
    fs::write(hiding.join(".wh.gone"), "").unwrap();
    let manifest = serde_json::json!({ "schemaVersion": 2, "layers": [below, layer(&hiding)] });
    let (digest, descriptor) = put(manifest.to_string().as_bytes(), "manifest.v1+json");
    fs::write(layout.join("index.json"), serde_json::json!({ "manifests": [descriptor] }).to_string()).unwrap();
    let archive = host.path("image.tar");
    tar(&["--create"], &layout, &archive);
    (archive.to_str().unwrap().to_owned(), digest)
}

#[test]
fn a_rerun_takes_its_root_from_an_image_with_the_receipts_manifest_and_from_no_other() {
    if cannot_run() {
        return;
    }
    let host = Host::new();
    let evidence = first_run(&host, "[ ! -e /gone ] && echo hello", &["--pin"]);
    let bundle = host.path("bundle");
    let (archive, manifest) = image(&host, &bundle.join("rootfs"));
    let bytes = fs::read(format!("{evidence}/receipt.sigstore.json")).unwrap();
    let record = Evidence::from_bytes(&bytes).unwrap().entry().unwrap().record;
    let Record::Receipt(mut receipt) = record else { panic!("a run ends with a receipt") };
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    receipt.run.image = Some(Image { media_type, digest: manifest });
    host.seal_receipt("imaged", &receipt);
    let (policy, here) = (Policy::embedded("service").unwrap(), HostCapabilities::probe());
    let spec = Spec::load(bundle.join("config.json")).unwrap();
    let rootfs = Path::new("/r");
    let request = PlanRequest { spec: &spec, policy: &policy, host: &here, rootfs, has_layer: true, seed: None };
    let config = host.path("plan.json");
    fs::write(&config, cage::plan(&request).unwrap().config).unwrap();
    let config = config.to_str().unwrap();
    let same = host.run(&["rerun", "imaged", "--image", &archive, "--spec", config]);
    assert_eq!(same.status.code(), Some(0), "{}{}", stdout(&same), stderr(&same));
    receipt.run.image.as_mut().unwrap().digest = Sha256Digest::EMPTY;
    host.seal_receipt("other", &receipt);
    let other = host.run(&["rerun", "other", "--image", &archive, "--spec", config]);
    assert_fails(&other, 3, "DL0906", &["no image with the manifest"]);
    assert!(fs::read_dir(host.path("stage")).unwrap().next().is_none(), "nothing is left on the stage");
}
