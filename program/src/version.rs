//! For build scripts: a program's version with the commit it was built from.
//!
//! An environment variable wins, for builds from an archive; else git is asked; without either the commit is `unknown`. The `ci` profile is
//! rebuilt many times an hour by people who do not release it: it says `ci` and does not follow git, so a commit rebuilds nothing.

use std::env;
use std::process::Command;

/// Gives the crate that is built `variable` with its version and commit. `commit_variable` names the commit where there is no git.
pub fn tell(variable: &str, commit_variable: &str) {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={commit_variable}");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = match env::var(commit_variable) {
        Ok(commit) if !commit.is_empty() => commit,
        _ if is_ci_profile() => "ci".to_owned(),
        _ => commit_of_checkout().unwrap_or_else(|| "unknown".to_owned()),
    };
    println!("cargo::rustc-env={variable}={version} ({commit})");
}

/// OUT_DIR is `<target>/<profile>/build/<package>/out`; the PROFILE variable only knows debug and release.
fn is_ci_profile() -> bool {
    let out = env::var("OUT_DIR").unwrap_or_default();
    std::path::Path::new(&out).ancestors().nth(3).and_then(|folder| folder.file_name()).is_some_and(|name| name == "ci")
}

fn commit_of_checkout() -> Option<String> {
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
