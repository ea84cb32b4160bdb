//! `docklock keygen`: the host's signing key.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use docklock::config::Config;
use docklock::signer::{FileKey, Signer, public_key_path};

use crate::failure::Failure;
use crate::output::{Format, print, print_json};

/// Make the host's signing key
#[derive(Args)]
#[command(
    long_about = "Makes a new Ed25519 key: PKCS#8 PEM with mode 0600 at the key file, and its public half beside it as \
`<key file>.pub.pem`. An existing key is never replaced.

Hand the public half to whoever shall check this host's receipts: it is what `docklock verify --trust` wants.

Examples:
  docklock keygen
  docklock keygen --key-file ./host.key"
)]
pub(crate) struct Arguments {
    /// Where to put the private key [default: key_file of the configuration]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How to print its name
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let path = match &arguments.key_file {
        Some(path) => path.clone(),
        None => {
            let path = Config::load(config)?.key_file;
            make_folder_of(&path)?;
            path
        }
    };
    let key = FileKey::generate(&path)?;
    let (keyid, public) = (key.public_key().keyid(), public_key_path(&path));
    match arguments.format {
        Format::Text => {
            print(&format!("{keyid}\nprivate key: {}\npublic key:  {}\n", path.display(), public.display()))?
        }
        Format::Json => print_json(&serde_json::json!({ "keyid": keyid, "keyFile": path, "publicKeyFile": public }))?,
    }
    Ok(0)
}

/// The configured key has a home of its own, made on first use; a folder that somebody names has to exist, or it is a slip.
fn make_folder_of(path: &Path) -> Result<(), Failure> {
    let Some(folder) = path.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|source| Failure::File {
        deed: "make the folder",
        path: folder.to_path_buf(),
        source,
    })
}
