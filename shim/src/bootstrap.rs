//! The `start` action: find the shim of this container's pod, or bring one up, and say where it listens.
//!
//! The socket is bound here and handed to the new shim as its standard input, so the address works the moment it is printed. The reply
//! is the bare address: containerd 1.6, 1.7 and 2 all read it as "ttrpc, task API version 2". Always true: two `start`s of one pod end
//! at one shim (the folder's lock), and a socket whose shim died is replaced.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpi_protocol::digest::Sha256Digest;
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use containerd_shim_protos::protobuf::Message;
use docklock::config::{CONFIG_VARIABLE, Config, ConfigError};
use docklock::spans::span;
use nix::fcntl::{Flock, FlockArg};

use crate::arguments::{ArgumentError, Arguments};
use crate::bundle::{Bundle, BundleError};
use crate::options::{OptionsError, RuntimeOptions, note_config};

/// Most bytes of standard input: the bound of containerd's own shims.
const INPUT_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Where sockets lie unless containerd says otherwise.
const SOCKET_DIRECTORY: &str = "/run/containerd/s";
/// Longest path of a socket: `sun_path` with its final NUL, unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Environment variable with containerd's ttrpc socket, where events go.
pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// File in a bundle by which containerd 1.6 finds a shim again.
const ADDRESS_FILE: &str = "address";

/// Why no shim could be started.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Standard input.
    #[error("could not read the bootstrap parameters from standard input: {source}")]
    Input {
        /// What the kernel said.
        source: io::Error,
    },
    /// More than containerd would send.
    #[error("the bootstrap parameters on standard input are longer than {INPUT_BYTES_MAX} bytes")]
    InputTooLong,
    /// The command line or the ids in the parameters.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The runtime options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The configuration; found out here, where containerd shows the sentence to its client.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A folder whose name leaves no room for the socket's.
    #[error("the socket path {} is {bytes} bytes long, more than the {SOCKET_PATH_BYTES_MAX} of a unix address", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Files, sockets, processes.
    #[error("could not {deed} {}: {source}", path.display())]
    System {
        /// What was tried.
        deed: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BootstrapError {
    fn system(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { deed, path: path.to_path_buf(), source }
    }
}

/// What containerd says at the start, by whichever of its two protocols.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    namespace: String,
    id: String,
    grpc_address: String,
    ttrpc_address: Option<String>,
    socket_directory: PathBuf,
    debug: bool,
}

impl Call {
    fn new(arguments: &Arguments, parameters: Option<&BootstrapParams>) -> Self {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let from = |pick: fn(&BootstrapParams) -> &String| parameters.map(pick).and_then(given);
        Self {
            namespace: from(|p| &p.namespace).unwrap_or_else(|| arguments.namespace.clone()),
            id: from(|p| &p.instance_id).unwrap_or_else(|| arguments.id.clone()),
            grpc_address: from(|p| &p.containerd_grpc_address).unwrap_or_else(|| arguments.address.clone()),
            ttrpc_address: from(|p| &p.containerd_ttrpc_address),
            socket_directory: parameters
                .and_then(|p| p.socket_dir.as_ref())
                .and_then(given)
                .map_or_else(|| SOCKET_DIRECTORY.into(), PathBuf::from),
            // LOG_LEVEL_DEBUG is -4, what is more verbose lies below.
            debug: arguments.debug || parameters.is_some_and(|p| p.log_level.value() <= -4),
        }
    }

    /// The socket's name is a digest: a pod's name fits no unix address, and two containerds must not meet.
    fn socket(&self, group: &str) -> PathBuf {
        let owner = Path::new(&self.grpc_address).join(&self.namespace).join(group);
        self.socket_directory.join(Sha256Digest::of(owner.as_os_str().as_encoded_bytes()).to_string())
    }
}

/// Runs the `start` action in the bundle that is the working directory and returns the address to print.
///
/// # Errors
/// Each [`BootstrapError`] is one sentence, which containerd passes on to its client.
pub fn start(arguments: &Arguments) -> Result<String, BootstrapError> {
    let _span = span("shim.bootstrap");
    let bundle_path =
        std::env::current_dir().map_err(BootstrapError::system("find", Path::new("the working directory")))?;
    let input = read_input(io::stdin().lock())?;
    let parameters = parameters(&input, arguments);
    let call = Call::new(arguments, parameters.as_ref());
    Arguments { namespace: call.namespace.clone(), id: call.id.clone(), ..Arguments::default() }.check_identifiers()?;
    let options =
        RuntimeOptions::from_start_input(if parameters.is_some() { &[] } else { &input }, parameters.as_ref())?;
    Config::load(options.config.as_deref())?;
    note_config(&bundle_path, options.config.as_deref())?;

    let socket = call.socket(Bundle::read(&bundle_path)?.group(&call.id));
    let address = format!("unix://{}", socket.display());
    if let Some(listener) = claim(&socket)?
        && let Err(error) = launch(&call, &options, &address, listener)
    {
        // Without a shim behind it the socket would only mislead the next start.
        fs::remove_file(&socket).map_err(BootstrapError::system("remove", &socket))?;
        return Err(error);
    }
    let note = bundle_path.join(ADDRESS_FILE);
    fs::write(&note, &address).map_err(BootstrapError::system("write", &note))?;
    Ok(address)
}

fn read_input(input: impl Read) -> Result<Vec<u8>, BootstrapError> {
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|source| BootstrapError::Input { source })?;
    if bytes.len() as u64 > INPUT_BYTES_MAX { Err(BootstrapError::InputTooLong) } else { Ok(bytes) }
}

/// BootstrapParams and the options' Any both begin with two strings, so an Any decodes as either. Ours are the parameters that name the
/// container and namespace of the command line; without a command line there is nothing else they could be.
fn parameters(input: &[u8], arguments: &Arguments) -> Option<BootstrapParams> {
    let parameters = BootstrapParams::parse_from_bytes(input).ok().filter(|_| !input.is_empty())?;
    let same = |given: &str, flag: &str| flag.is_empty() || given == flag;
    (same(&parameters.instance_id, &arguments.id) && same(&parameters.namespace, &arguments.namespace))
        .then_some(parameters)
}

/// Binds `path`, unless a living shim listens there.
fn claim(path: &Path) -> Result<Option<UnixListener>, BootstrapError> {
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(BootstrapError::SocketPath { path: path.to_path_buf(), bytes });
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(BootstrapError::system("make", directory))?;
    let folder = File::open(directory).map_err(BootstrapError::system("open", directory))?;
    let _lock = Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, errno)| BootstrapError::system("lock", directory)(errno.into()))?;
    match UnixStream::connect(path) {
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(BootstrapError::system("replace", path))?;
        }
        Err(error) => return Err(BootstrapError::system("connect to", path)(error)),
    }
    UnixListener::bind(path).map(Some).map_err(BootstrapError::system("listen on", path))
}

fn launch(call: &Call, options: &RuntimeOptions, address: &str, listener: UnixListener) -> Result<(), BootstrapError> {
    let program = Path::new("/proc/self/exe");
    let mut command = Command::new(program);
    command
        .arg0(std::env::args_os().next().unwrap_or_else(|| crate::BINARY.into()))
        .args(["-namespace", &call.namespace, "-id", &call.id, "-address", &call.grpc_address, "-socket", address])
        .args(call.debug.then_some("-debug"))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A backtrace costs 15 to 20 ms for each error libcontainer makes, those it recovers from among them.
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE")
        // containerd's readiness socket is not ours to write to.
        .env_remove("NOTIFY_SOCKET")
        // An idle shim should weigh little: its threads share one heap, and freed memory goes back.
        .envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_MMAP_THRESHOLD_", "65536")])
        // Out of containerd's process group, so that a signal to the group leaves the containers alone.
        .process_group(0);
    if let Some(ttrpc) = &call.ttrpc_address {
        command.env(TTRPC_ADDRESS, ttrpc);
    }
    if let Some(config) = &options.config {
        command.env(CONFIG_VARIABLE, config);
    }
    let child = command.spawn().map_err(BootstrapError::system("run", program))?;
    prefer_for_oom(child.id())
}

/// Out of memory, a shim goes before containerd does: its score is one above its parent's.
fn prefer_for_oom(shim: u32) -> Result<(), BootstrapError> {
    let parent = PathBuf::from(format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id()));
    let text = fs::read_to_string(&parent).map_err(BootstrapError::system("read", &parent))?;
    let score: i32 = text.trim().parse().unwrap_or_default();
    let own = PathBuf::from(format!("/proc/{shim}/oom_score_adj"));
    fs::write(&own, (score + 1).min(1000).to_string()).map_err(BootstrapError::system("write", &own))
}

/// Removes the socket of a shim that is gone, if the bundle still knows it.
///
/// # Errors
/// The kernel's answer, with the path.
pub fn remove_dead_socket(bundle: &Path) -> Result<(), BootstrapError> {
    let note = bundle.join(ADDRESS_FILE);
    let address = match fs::read_to_string(&note) {
        Ok(address) => address,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BootstrapError::system("read", &note)(error)),
    };
    let Some(path) = address.strip_prefix("unix://").map(Path::new) else { return Ok(()) };
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(BootstrapError::system("remove", path))
        }
        // It lives (a pod's shim may), or it is gone already.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(address: &str, namespace: &str) -> Call {
        let arguments =
            Arguments { namespace: namespace.into(), id: "c".into(), address: address.into(), ..Arguments::default() };
        Call::new(&arguments, None)
    }

    #[test]
    fn the_socket_is_named_after_containerd_namespace_and_group() {
        // The vector of containerd's own shims: SHA-256 of "/run/containerd/containerd.sock/default/123".
        assert_eq!(
            call("/run/containerd/containerd.sock", "default").socket("123"),
            Path::new("/run/containerd/s/0ddfbd72d02b3551e75f3a0ed90b9965b533401be618f43a568bc522764e0ad0")
        );
        assert_ne!(call("/a", "default").socket("123"), call("/b", "default").socket("123"));
        assert_ne!(call("/a", "default").socket("123"), call("/a", "k8s.io").socket("123"));
    }

    #[test]
    fn bootstrap_parameters_count_more_than_flags() {
        let parameters = BootstrapParams {
            instance_id: "c".into(),
            namespace: "n".into(),
            containerd_grpc_address: "/grpc".into(),
            containerd_ttrpc_address: "/ttrpc".into(),
            socket_dir: Some("/tmp/s".into()),
            ..BootstrapParams::default()
        };
        let call = Call::new(&Arguments::default(), Some(&parameters));
        assert_eq!((call.id.as_str(), call.namespace.as_str(), call.grpc_address.as_str()), ("c", "n", "/grpc"));
        assert_eq!(call.ttrpc_address.as_deref(), Some("/ttrpc"));
        assert!(call.socket("c").starts_with("/tmp/s"));
    }

    #[test]
    fn options_on_standard_input_are_not_taken_for_bootstrap_parameters() {
        let flags = Arguments { namespace: "default".into(), id: "demo".into(), ..Arguments::default() };
        let any = containerd_shim_protos::protobuf::well_known_types::any::Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: b"\x12\x02/x".to_vec(),
            ..Default::default()
        };
        assert_eq!(parameters(&any.write_to_bytes().unwrap(), &flags), None);
        assert_eq!(parameters(&[], &flags), None);
        let mine =
            BootstrapParams { instance_id: "demo".into(), namespace: "default".into(), ..BootstrapParams::default() };
        assert_eq!(parameters(&mine.write_to_bytes().unwrap(), &flags), Some(mine));
    }

    #[test]
    fn endless_input_is_refused() {
        assert!(matches!(read_input(io::repeat(0)), Err(BootstrapError::InputTooLong)));
    }

    #[test]
    fn a_living_shim_is_found_and_a_dead_ones_socket_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s/socket");
        let living = claim(&path).unwrap().unwrap();
        assert!(claim(&path).unwrap().is_none());
        drop(living);
        assert!(claim(&path).unwrap().is_some());
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(claim(&long), Err(BootstrapError::SocketPath { .. })));
    }

    #[test]
    fn a_dead_socket_goes_with_its_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        fs::write(bundle.path().join(ADDRESS_FILE), format!("unix://{}", path.display())).unwrap();
        remove_dead_socket(bundle.path()).unwrap();
        assert!(!path.exists());
        remove_dead_socket(bundle.path()).unwrap();
    }
}
