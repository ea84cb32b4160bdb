#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// What the listing of `lines` hashes to.
fn digest_of(lines: &[&str]) -> Sha256Digest {
    Sha256Digest::of(lines.concat().as_bytes())
}

fn sha(bytes: &[u8]) -> String {
    Sha256Digest::of(bytes).to_string()
}

fn file(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn folder(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn layer(root: &Path) -> Outputs {
    digest_layer(root, &Limits::default()).unwrap()
}

#[test]
fn an_empty_layer_is_the_digest_of_no_bytes() {
    let root = tempfile::tempdir().unwrap();
    let outputs = layer(root.path());
    assert_eq!((outputs.digest, outputs.entries, outputs.scope.as_str()), (Sha256Digest::EMPTY, 0, "layer"));
}

#[test]
fn a_listing_that_is_written_is_what_the_digest_is_of() {
    let root = tempfile::tempdir().unwrap();
    folder(&root.path().join("a"), 0o755);
    file(&root.path().join("a/b"), b"hello\n", 0o644);
    let mut listing = Vec::new();
    let outputs = list_layer(root.path(), &Limits::default(), &mut listing).unwrap();
    assert_eq!((outputs.clone(), outputs.digest), (layer(root.path()), Sha256Digest::of(&listing)));
    assert!(String::from_utf8(listing).unwrap().ends_with("\"/a/b\"\n"));
}

#[test]
fn an_image_is_another_one_when_a_time_in_it_is() {
    let root = tempfile::tempdir().unwrap();
    file(&root.path().join("a"), b"hello\n", 0o644);
    let digest = || digest_image(root.path(), &Limits::default()).unwrap();
    let (layer_before, before) = (layer(root.path()), digest());
    assert_eq!(before, digest());
    let file = fs::File::options().write(true).open(root.path().join("a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(layer(root.path()), layer_before);
    assert_ne!(digest(), before);
}

#[test]
fn every_kind_of_entry_has_its_line_in_byte_order() {
    let root = tempfile::tempdir().unwrap();
    folder(&root.path().join("a"), 0o755);
    file(&root.path().join("a/b"), b"hello\n", 0o644);
    file(&root.path().join("a-b"), b"", 0o4755);
    file(&root.path().join("a0"), b"x", 0o600);
    symlink("../../etc/passwd", root.path().join("link")).unwrap();
    nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(root.path().join("pipe"), fs::Permissions::from_mode(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("sock")).unwrap();
    fs::set_permissions(root.path().join("sock"), fs::Permissions::from_mode(0o700)).unwrap();
    let outputs = layer(root.path());
    // '-' sorts before '/', and '0' after it.
    let expected = digest_of(&[
        &format!("f4755 0 {} \"/a-b\"\n", sha(b"")),
        "d0755 - - \"/a/\"\n",
        &format!("f0644 6 {} \"/a/b\"\n", sha(b"hello\n")),
        &format!("f0600 1 {} \"/a0\"\n", sha(b"x")),
        &format!("l0777 16 {} \"/link\"\n", sha(b"../../etc/passwd")),
        "p0600 - - \"/pipe\"\n",
        "s0700 - - \"/sock\"\n",
    ]);
    assert_eq!((outputs.digest, outputs.entries), (expected, 7));
}

#[test]
fn whiteouts_devices_and_opaque_directories_are_told_apart() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let root = tempfile::tempdir().unwrap();
    let mode = Mode::from_bits_truncate(0o600);
    if let Err(errno) = mknod(&root.path().join("gone"), SFlag::S_IFCHR, mode, makedev(0, 0)) {
        eprintln!("skipped: this user cannot make device nodes ({errno})");
        return;
    }
    if let Err(errno) = mknod(&root.path().join("null"), SFlag::S_IFCHR, mode, makedev(1, 3)) {
        eprintln!("skipped: this user cannot make device nodes ({errno})");
        return;
    }
    for name in ["gone", "null"] {
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder(&root.path().join("hides"), 0o700);
    if let Err(errno) =
        rustix::fs::setxattr(root.path().join("hides"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
    {
        eprintln!("skipped: this user cannot set trusted attributes ({errno})");
        return;
    }
    let expected = digest_of(&["w0600 - - \"/gone\"\n", "o0700 - - \"/hides/\"\n", "c0600 - - \"/null\"\n"]);
    assert_eq!(layer(root.path()).digest, expected);
    file(&root.path().join("stub"), b"", 0o600);
    rustix::fs::setxattr(root.path().join("stub"), "trusted.overlay.metacopy", b"", rustix::fs::XattrFlags::empty())
        .unwrap();
    assert_eq!(digest_layer(root.path(), &Limits::default()).unwrap_err().code(), "DL0606");
}

#[test]
fn names_that_are_no_text_are_written_so_that_they_can_be_read_back() {
    let root = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff\"\\\n\x01\xc3\xa4");
    file(&root.path().join(name), b"", 0o644);
    let expected = digest_of(&[&format!("f0644 0 {} \"/\\udcff\\\"\\\\\\n\\u0001ä\"\n", sha(b""))]);
    assert_eq!(layer(root.path()).digest, expected);
}

#[test]
fn declared_paths_are_listed_once_in_order_and_absent_ones_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    folder(&root.path().join("out"), 0o755);
    file(&root.path().join("out/x"), b"1", 0o644);
    file(&root.path().join("out-log"), b"2", 0o644);
    file(&root.path().join("other"), b"3", 0o644);
    let declared: Vec<PathBuf> =
        ["/out/x", "/out/", "/out-log", "/none", "/other/none", "//out"].map(PathBuf::from).to_vec();
    let outputs = digest_paths(root.path(), &declared, &Limits::default()).unwrap();
    let expected = digest_of(&[
        &format!("f0644 1 {} \"/out-log\"\n", sha(b"2")),
        "d0755 - - \"/out/\"\n",
        &format!("f0644 1 {} \"/out/x\"\n", sha(b"1")),
    ]);
    assert_eq!((outputs.digest, outputs.entries, outputs.scope.as_str()), (expected, 3, "paths"));
}

#[test]
fn the_root_itself_may_be_declared() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    file(&root.path().join("x"), b"1", 0o644);
    let outputs = digest_paths(root.path(), &["/".into(), "/x".into()], &Limits::default()).unwrap();
    assert_eq!(outputs.digest, digest_of(&["d0755 - - \"/\"\n", &format!("f0644 1 {} \"/x\"\n", sha(b"1"))]));
}

#[test]
fn a_link_never_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    file(&outside.path().join("secret"), b"secret", 0o644);
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("../../../..", root.path().join("up")).unwrap();
    let declared = [PathBuf::from("/out/secret"), PathBuf::from("/up").join(outside.path().strip_prefix("/").unwrap())];
    let outputs = digest_paths(root.path(), &declared, &Limits::default()).unwrap();
    assert_eq!(outputs.entries, 0);
    let outputs = digest_paths(root.path(), &["/out".into()], &Limits::default()).unwrap();
    let target = outside.path().as_os_str().as_bytes();
    assert_eq!(outputs.digest, digest_of(&[&format!("l0777 {} {} \"/out\"\n", target.len(), sha(target))]));
}

#[test]
fn a_declared_path_that_names_no_one_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for path in ["", "out", "./out", "/a/../b", "/a/./b"] {
        let error = digest_paths(root.path(), &[path.into()], &Limits::default()).unwrap_err();
        assert_eq!(error.code(), "DL0602", "{path}");
    }
}

#[test]
fn each_limit_ends_the_walk_and_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b/c")).unwrap();
    fs::write(root.path().join("a/file"), [0; 100]).unwrap();
    let measure = |limits: Limits| digest_layer(root.path(), &limits);
    let default = Limits::default();
    assert!(measure(Limits { entries_max: 4, bytes_max: 100, depth_max: 4 }).is_ok());
    assert_eq!(measure(Limits { entries_max: 3, ..default }).unwrap_err().code(), "DL0603");
    assert_eq!(measure(Limits { bytes_max: 99, ..default }).unwrap_err().code(), "DL0604");
    let deep = measure(Limits { depth_max: 3, ..default }).unwrap_err();
    assert!(deep.to_string().contains("\"/a/b/c\""), "{deep}");
}

#[test]
fn a_sparse_file_counts_with_its_holes() {
    let root = tempfile::tempdir().unwrap();
    fs::File::create(root.path().join("bomb")).unwrap().set_len(1 << 40).unwrap();
    let limits = Limits { bytes_max: 1 << 20, ..Limits::default() };
    assert_eq!(digest_layer(root.path(), &limits).unwrap_err().code(), "DL0604");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The lines come in byte order whatever the names: the walk agrees with sorting all full paths at once.
    #[test]
    fn the_walk_lists_in_the_order_of_sorted_full_paths(paths in prop::collection::btree_set("[a!0./-]{1,3}(/[a!0.-]{1,3}){0,2}", 1..20)) {
        let root = tempfile::tempdir().unwrap();
        for path in &paths {
            let clean: PathBuf = path.split('/').filter(|part| !part.is_empty() && !part.chars().all(|c| c == '.')).collect();
            if let Some(parent) = clean.parent() && fs::create_dir_all(root.path().join(parent)).is_ok() && !root.path().join(&clean).exists() {
                fs::write(root.path().join(&clean), b"").unwrap();
            }
        }
        let mut lines = Vec::new();
        collect(root.path(), "", &mut lines);
        lines.sort();
        let text: String = lines.iter().map(|(_, line)| line.as_str()).collect();
        let outputs = layer(root.path());
        prop_assert_eq!((outputs.digest, outputs.entries), (Sha256Digest::of(text.as_bytes()), lines.len() as u64));
    }
}

fn collect(folder: &Path, prefix: &str, lines: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        let path = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            lines.push((format!("{path}/"), format!("d{mode:04o} - - \"{path}/\"\n")));
            collect(&entry.path(), &path, lines);
        } else {
            lines.push((path.clone(), format!("f{mode:04o} 0 {} \"{path}\"\n", sha(b""))));
        }
    }
}
