#![allow(clippy::unwrap_used)]

use super::*;

fn profile(policy: &str) -> AppArmorProfile {
    AppArmorProfile::of(&Policy::embedded(policy).unwrap(), Path::new("/usr/sbin/apparmor_parser"))
}

#[test]
fn a_name_tells_the_policy_and_its_digest() {
    let digest = Policy::embedded("strict").unwrap().digest().to_string();
    let name = profile("strict").name;
    assert!(name.starts_with(&format!("docklock-strict-{}-", &digest[..16])) && name.len() == 41, "{name}");
}

#[test]
fn a_profile_grants_no_capability_beyond_the_policy() {
    for name in Policy::embedded_names() {
        let text = profile(name).text;
        let granted: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("capability ")).collect();
        assert_eq!(granted.len(), Policy::embedded(name).unwrap().profile().capabilities.len());
        assert!(
            !granted.iter().any(|capability| capability.starts_with("sys_admin") || capability.starts_with("mac_"))
        );
    }
}

#[test]
fn a_profile_denies_mounts_raw_sockets_and_tracing() {
    let text = profile("service").text;
    for rule in [
        "deny mount,",
        "deny pivot_root,",
        "deny network inet raw,",
        "deny umount,",
        "deny /proc/sys/** wklx,",
        "deny ptrace",
    ] {
        assert!(text.contains(rule), "{rule}");
    }
}

/// A masked file reads as empty everywhere; with a rule against reading it would be an error on hosts with AppArmor.
#[test]
fn a_profile_denies_no_reading() {
    for name in Policy::embedded_names() {
        let text = profile(name).text;
        let denied = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("deny "))
            .filter(|rule| rule.starts_with(['/', '@']));
        let kinds: Vec<_> = denied.filter_map(|rule| rule.trim_end_matches(',').rsplit(' ').next()).collect();
        assert!(kinds.len() > 5 && kinds.iter().all(|kinds| !kinds.contains('r')), "{kinds:?}");
    }
}

#[test]
fn a_loaded_profile_is_recognised_by_its_whole_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("profiles");
    std::fs::write(&file, "docklock-strict-00 (enforce)\nother (complain)\n").unwrap();
    assert!(
        is_loaded(&file, "docklock-strict-00") && !is_loaded(&file, "docklock-strict-0") && !is_loaded(&file, "other")
    );
}

#[test]
fn a_parser_that_cannot_be_run_is_named() {
    let absent = AppArmorProfile { parser: PathBuf::from("/absent/apparmor_parser"), ..profile("strict") };
    assert!(parse(&absent, &[]).unwrap_err().to_string().contains("/absent/apparmor_parser"));
}

/// The parser checks and compiles the text without asking the kernel.
#[test]
fn the_parser_takes_every_embedded_profile() {
    let Some(parser) = crate::host::HostCapabilities::probe().apparmor.parser else {
        eprintln!("skipped: apparmor_parser is not installed");
        return;
    };
    for name in Policy::embedded_names() {
        let profile = AppArmorProfile { parser: parser.clone(), ..profile(name) };
        parse(&profile, &["--quiet", "--skip-cache", "--skip-kernel-load"]).unwrap();
    }
}
