//! Bad input gets one sentence that names it, starts nothing and leaves nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bpi_tests::command::{DEADLINE, Finished, run};
use bpi_tests::daemon::{Daemon, Settings, Version};
use bpi_tests::namespace::Namespace;
use bpi_tests::records::{all_closed, read};
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("a_bad_annotation_is_named_and_starts_nothing", annotations),
    ("a_bad_configuration_is_named_and_starts_nothing", configuration),
    ("a_key_that_others_can_read_is_refused", readable_key),
    ("a_full_disk_under_the_spool_starts_nothing", full_disk),
    ("a_spool_that_cannot_be_written_starts_nothing", unwritable_spool),
    ("a_malformed_bundle_is_named_and_leaves_nothing", malformed_bundle),
];

/// `ctr run` was refused with a text that holds each word, nothing ran and nothing is left.
fn refused(namespace: &Namespace<'_>, finished: &Finished, words: &[&str]) -> Result<(), Failure> {
    ensure(finished.code != 0, format!("accepted: {}", finished.describe()))?;
    ensure(!finished.text().contains("it-ran"), "the workload started")?;
    let said = finished.error_text();
    for word in words {
        ensure(said.contains(word), format!("the error does not name {word:?}: {said}"))?;
    }
    ensure(!said.contains("panicked"), format!("a panic instead of a sentence: {said}"))?;
    namespace.leaves_nothing()
}

const SAYS_IT_RAN: &[&str] = &["echo", "it-ran"];

fn annotations(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("annotations")?;
    let table: &[(&str, &[&str])] = &[
        ("io.bpi.docklock.profile=no-such-profile", &["no-such-profile"]),
        ("io.bpi.docklock.profile=../../etc/passwd", &["../../etc/passwd"]),
        ("io.bpi.docklock.prfile=strict", &["io.bpi.docklock.prfile"]),
        ("io.bpi.docklock.outputs=relative/path", &["relative/path"]),
        ("io.bpi.docklock.outputs=/out/../../etc", &["/out/../../etc"]),
    ];
    for (number, (annotation, words)) in table.iter().enumerate() {
        let finished = namespace.run(&format!("bad-{number}"), &["--annotation", annotation], SAYS_IT_RAN)?;
        refused(&namespace, &finished, words)?;
    }
    all_closed(&daemon.spool, &namespace.name, Duration::from_secs(5))?;
    namespace.run("good", &[], &["true"])?.ok()?;
    done()
}

/// Starts a daemon of its own with `settings`, lets `harm` spoil something, and expects `ctr run` to be refused with `words`.
fn refused_after(
    world: &World,
    version: Version,
    name: &str,
    settings: &Settings,
    harm: impl Fn(&Daemon) -> Result<(), Failure>,
    words: &[&str],
) -> Result<(), Failure> {
    let daemon = Daemon::start(world, version, &format!("{name}-{}", version.label()), settings)?;
    let outcome = (|| {
        let namespace = daemon.namespace(name)?;
        harm(&daemon)?;
        let finished = namespace.run("refused", &[], SAYS_IT_RAN)?;
        refused(&namespace, &finished, words)
    })();
    let left = daemon.stop();
    outcome?;
    ensure(left.is_empty(), format!("left behind: {left:?}"))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn configuration(world: &World, version: Version) -> Outcome {
    let table: &[(&str, &str, &[&str])] = &[
        ("cfg-unknown", "spool = \"/tmp\"\n", &["docklock.toml", "spool"]),
        ("cfg-profile", "default_profile = \"nowhere\"\n", &["nowhere"]),
        ("cfg-syntax", "key_file = \n", &["docklock.toml"]),
    ];
    for (name, line, words) in table {
        // The key must be made with a good configuration first: harm comes after the start.
        let harm = |daemon: &Daemon| {
            let text = fs::read_to_string(&daemon.config)
                .map_err(|error| format!("cannot read the configuration: {error}"))?;
            write(&daemon.config, &format!("{text}{line}"))
        };
        refused_after(world, version, name, &Settings::default(), harm, words)?;
    }
    done()
}

fn readable_key(world: &World, version: Version) -> Outcome {
    let harm = |daemon: &Daemon| {
        let key = daemon.folder.join("host.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644))
            .map_err(|error| format!("cannot chmod the key: {error}").into())
    };
    refused_after(world, version, "key-open", &Settings::default(), harm, &["host.key"])?;
    let harm = |daemon: &Daemon| {
        write(&daemon.folder.join("host.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    };
    refused_after(world, version, "key-bad", &Settings::default(), harm, &["host.key"])?;
    done()
}

fn full_disk(world: &World, version: Version) -> Outcome {
    let spool = world.scratch.path().join(format!("small-disk-{}", version.label()));
    fs::create_dir_all(&spool).map_err(|error| format!("cannot make {}: {error}", spool.display()))?;
    mount(Some("tmpfs"), &spool, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))
        .map_err(|error| format!("cannot mount a small disk: {error}"))?;
    let settings = Settings { spool: Some(spool.clone()), ..Settings::default() };
    let filler = spool.join("filler");
    let harm = |_: &Daemon| {
        // Filled to the last block: the write that fails is the point.
        let written = fs::write(&filler, vec![0_u8; 1 << 20]);
        ensure(written.is_err(), "a disk of 256 KiB took 1 MiB")
    };
    let outcome = refused_after(world, version, "full-disk", &settings, harm, &["space"]);
    let intents = read(&spool, &format!("full-disk-{}", if version == Version::Debian { 1 } else { 2 }));
    umount2(&spool, MntFlags::MNT_DETACH).map_err(|error| format!("cannot unmount the small disk: {error}"))?;
    outcome?;
    ensure(intents?.is_empty(), "a record was written to a full disk")?;
    done()
}

fn unwritable_spool(world: &World, version: Version) -> Outcome {
    let harm = |daemon: &Daemon| {
        // Root may write everywhere; a file where the folder should be stops root too.
        if daemon.spool.exists() {
            fs::remove_dir_all(&daemon.spool).map_err(|error| format!("cannot remove the spool: {error}"))?;
        }
        write(&daemon.spool, "not a folder")
    };
    refused_after(world, version, "no-spool", &Settings::default(), harm, &["spool"])?;
    done()
}

/// Without containerd, since containerd always writes well-formed bundles.
fn malformed_bundle(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let table: &[(&str, Option<&str>)] = &[
        ("no-config", None),
        ("not-json", Some("{")),
        ("empty-object", Some("{}")),
        (
            "no-process",
            Some(
                r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}]}}"#,
            ),
        ),
        ("no-root", Some(r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0}}}"#)),
    ];
    for (name, config) in table {
        let bundle = world.scratch.path().join(format!("bundle-{name}-{}", version.label()));
        fs::create_dir_all(bundle.join("rootfs")).map_err(|error| format!("cannot make a bundle: {error}"))?;
        if let Some(text) = config {
            write(&bundle.join("config.json"), text)?;
        }
        let mut command = world.docklock(&daemon.config);
        command.args(["run", "--bundle"]).arg(&bundle).args(["--id", &format!("bad-{name}")]);
        let finished = run(command, b"", DEADLINE)?;
        ensure(finished.code != 0, format!("{name}: accepted"))?;
        let said = finished.error_text();
        ensure(
            said.contains("config.json") || said.contains("spec"),
            format!("{name}: the error does not name config.json: {said}"),
        )?;
        ensure(!said.contains("panicked"), format!("{name}: a panic instead of a sentence: {said}"))?;
    }
    done()
}
