//! Each rule set is applied in a thread of its own: Landlock binds the thread that asks, and its children.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};

use super::*;
use crate::host::HostCapabilities;

/// Runs `deed` under the rules; `None` on a kernel without Landlock.
fn under<T: Send + 'static>(rules: LandlockRules, deed: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if HostCapabilities::probe().landlock_abi < ABI_MIN {
        eprintln!("skipped: the kernel has no Landlock of ABI {ABI_MIN}");
        return None;
    }
    let fenced = move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        rules.apply().unwrap();
        deed()
    };
    Some(std::thread::spawn(fenced).join().unwrap())
}

fn no_devices() -> LandlockRules {
    LandlockRules { deny_device_nodes: true, ..LandlockRules::default() }
}

fn make_null(path: &Path) -> nix::Result<()> {
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR, nix::libc::makedev(1, 3))
}

#[test]
fn a_device_node_cannot_be_made_and_a_fifo_can() {
    let dir = tempfile::tempdir().unwrap();
    let may_without_rules = make_null(&dir.path().join("before")).is_ok();
    let path = dir.path().to_owned();
    let made = under(no_devices(), move || {
        (make_null(&path.join("null")), mknod(&path.join("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0))
    });
    if let Some((device, fifo)) = made {
        assert!(!may_without_rules || device == Err(nix::errno::Errno::EACCES), "{device:?}");
        assert!(device.is_err() && fifo.is_ok(), "{device:?} {fifo:?}");
    }
}

#[test]
fn files_still_move_between_directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let moved = under(no_devices(), move || {
        fs::create_dir(path.join("a")).unwrap();
        fs::create_dir(path.join("b")).unwrap();
        fs::write(path.join("a/file"), b"x").unwrap();
        fs::rename(path.join("a/file"), path.join("b/file"))
            .and_then(|()| fs::hard_link(path.join("b/file"), path.join("a/link")))
    });
    assert!(moved.is_none_or(|moved| moved.is_ok()));
}

#[test]
fn writing_is_confined_to_the_granted_paths() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let missing = inside.path().join("missing");
    let rules = LandlockRules {
        write_beneath: Some([inside.path().to_owned(), missing].into_iter().collect()),
        ..LandlockRules::default()
    };
    let (here, there) = (inside.path().join("file"), outside.path().join("file"));
    fs::write(&there, b"x").unwrap();
    let done =
        under(rules, move || (File::create(here).is_ok(), File::create(&there).is_ok(), File::open(&there).is_ok()));
    assert!(done.is_none_or(|done| done == (true, false, true)), "{done:?}");
}

#[test]
fn an_empty_rule_set_binds_nothing() {
    assert!(under(LandlockRules::default(), || ()).is_none_or(|()| true));
}
