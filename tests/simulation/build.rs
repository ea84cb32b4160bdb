//! Names the core that is searched: the digest of its sources and of what they judge messages by, without comments and blank lines.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

/// The core and its replica, and the bytes and predicates of the protocol that they use. The real signature scheme is not searched.
const SOURCES: [&str; 12] = [
    "validator/src/core",
    "validator/src/replica.rs",
    "protocol/src/consensus/bytes.rs",
    "protocol/src/consensus/equivocation.rs",
    "protocol/src/consensus/header.rs",
    "protocol/src/consensus/ids.rs",
    "protocol/src/consensus/justification.rs",
    "protocol/src/consensus/light.rs",
    "protocol/src/consensus/message.rs",
    "protocol/src/consensus/seal.rs",
    "protocol/src/consensus/statement.rs",
    "protocol/src/consensus/validators.rs",
];

fn files(place: &Path) -> io::Result<Vec<PathBuf>> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(place)? {
        found.extend(files(&entry?.path())?);
    }
    found.sort();
    Ok(found)
}

fn main() -> io::Result<()> {
    // Asked for now and not when this script was compiled: a build folder that clones share keeps the script of another one.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let root = Path::new(&here).join("../..");
    let mut hasher = Sha256::new();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
        for file in files(&root.join(source))? {
            let text = fs::read_to_string(&file)?;
            for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")) {
                hasher.update(line);
                hasher.update("\n");
            }
        }
    }
    let digest = hasher.finalize();
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo:rustc-env=BPI_CORE={name}");
    Ok(())
}
