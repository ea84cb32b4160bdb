//! A private containerd with its own root, state, socket, configuration, host key and spool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{DEADLINE, run, wait};
use crate::namespace::Namespace;
use crate::world::World;
use crate::{Failure, eventually};

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The installed package: 1.6 on Debian 12, task API v2, configuration version 2.
    Debian,
    /// A newer Debian's package, unpacked: 2.x, task API v3, configuration version 3.
    Newer,
}

impl Version {
    /// Both, in the order in which tests are listed.
    pub const ALL: [Self; 2] = [Self::Debian, Self::Newer];

    /// As in test names.
    pub fn label(self) -> &'static str {
        match self {
            Self::Debian => "containerd_1",
            Self::Newer => "containerd_2",
        }
    }
}

/// What a test may want different.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Spool folder; otherwise one below the daemon's own folder.
    pub spool: Option<PathBuf>,
    /// Lines put at the end of docklock.toml.
    pub docklock: String,
    /// Further environment of containerd, and so of its shims.
    pub environment: Vec<(String, String)>,
}

/// A running containerd.
pub struct Daemon {
    /// Which one.
    pub version: Version,
    /// Everything of it that lies on disk.
    pub folder: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// docklock.toml of its shims.
    pub config: PathBuf,
    /// Where its shims put receipts.
    pub spool: PathBuf,
    /// Where its shims keep state.
    pub state: PathBuf,
    /// Public half of the host key.
    pub trust: PathBuf,
    /// The image that namespaces get.
    pub image: crate::image::Image,
    /// Runtime under test.
    pub runtime: String,
    programs: PathBuf,
    shims: PathBuf,
    environment: Vec<(String, String)>,
    child: Mutex<Child>,
}

impl Daemon {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When this version is not here, or it does not answer within 30 s.
    pub fn start(world: &World, version: Version, name: &str, settings: &Settings) -> Result<Self, Failure> {
        let programs = world.containerd(version)?;
        let folder = world.scratch.path().join(name);
        let state = PathBuf::from("/run/bpi-test").join(name);
        for path in [&folder, &state] {
            fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        }
        let spool = settings.spool.clone().unwrap_or_else(|| folder.join("spool"));
        let (config, trust) = write_docklock_config(world, &folder, &state, &spool, &settings.docklock)?;
        let socket = state.join("containerd.sock");
        write_containerd_config(version, &folder, &state, &socket)?;
        let daemon = Self {
            version,
            socket,
            config,
            spool,
            trust,
            image: world.image.clone(),
            runtime: world.runtime.clone(),
            shims: world.programs.clone(),
            environment: settings.environment.clone(),
            child: Mutex::new(spawn(&programs, &world.programs, &folder, &settings.environment)?),
            programs,
            state: state.join("docklock"),
            folder,
        };
        daemon.wait_until_it_answers()?;
        Ok(daemon)
    }

    fn wait_until_it_answers(&self) -> Result<(), Failure> {
        let answer = eventually("containerd answers", Duration::from_secs(30), || {
            run(self.ctr(&["version"]), b"", DEADLINE).ok().filter(|finished| finished.code == 0)
        });
        answer.map(|_| ()).map_err(|_| {
            let log = fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default();
            let end = log.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            format!("containerd ({}) does not answer; the end of its log:\n{end}", self.version.label()).into()
        })
    }

    /// `ctr` of this containerd, talking to it.
    pub fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(&self.socket).args(words).env_remove("CONTAINERD_NAMESPACE");
        command
    }

    /// A namespace of this containerd with the test image in it; its name is also the boundary of its receipts.
    ///
    /// # Errors
    /// When the image cannot be imported.
    pub fn namespace(&self, name: &str) -> Result<Namespace<'_>, Failure> {
        Namespace::new(self, name)
    }

    /// Ends containerd as `systemctl restart` does, leaving its shims alive, and starts it again.
    ///
    /// # Errors
    /// When it does not end or does not answer again.
    pub fn restart(&self) -> Result<(), Failure> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        terminate(&mut child)?;
        *child = spawn(&self.programs, &self.shims, &self.folder, &self.environment)?;
        drop(child);
        self.wait_until_it_answers()
    }

    /// The end of containerd's log, for messages.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("level=error") || line.contains("level=warn")).collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Process id of containerd.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Stops it; tells what of its shims is still there although every container was removed by its test.
    pub fn stop(&self) -> Vec<String> {
        let marker = self.socket.to_string_lossy().into_owned();
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = terminate(&mut child).err().map(|error| crate::world::text_of(&error));
        let shims = crate::leak::processes(&marker).into_iter().map(|line| format!("shim {line}"));
        ended.into_iter().chain(shims).collect()
    }
}

impl Drop for Daemon {
    /// A failing test returns early; its containerd must not outlive it. After [`Daemon::stop`] there is nothing left to end.
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None))
            && let Err(failure) = terminate(child)
        {
            eprintln!("{}", crate::world::text_of(&failure));
        }
    }
}

fn terminate(child: &mut Child) -> Result<(), Failure> {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit i32"));
    kill(pid, Signal::SIGTERM).map_err(|error| format!("cannot end containerd {pid}: {error}"))?;
    wait(child, "containerd", Duration::from_secs(20)).map(|_| ())
}

fn spawn(programs: &Path, shims: &Path, folder: &Path, environment: &[(String, String)]) -> Result<Child, Failure> {
    let log_path = folder.join("containerd.log");
    let log = fs::File::options().create(true).append(true).open(&log_path);
    let log = log.map_err(|error| format!("cannot open {}: {error}", log_path.display()))?;
    let copy = log.try_clone().map_err(|error| format!("cannot duplicate the log: {error}"))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(programs.join("containerd"));
    command.arg("--config").arg(folder.join("containerd.toml"));
    command.env("PATH", format!("{}:{}:{path}", shims.display(), programs.display()));
    command.env("DOCKLOCK_CONFIG", folder.join("docklock.toml"));
    command.env("RUST_BACKTRACE", "0");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    command.spawn().map_err(|error| format!("cannot start {}: {error}", programs.join("containerd").display()).into())
}

/// Writes docklock.toml and a host key beside it; returns the paths of the file and of the key's public half.
///
/// # Errors
/// When a file cannot be written or `docklock keygen` fails.
pub fn write_docklock_config(
    world: &World,
    folder: &Path,
    state: &Path,
    spool: &Path,
    more: &str,
) -> Result<(PathBuf, PathBuf), Failure> {
    let key = folder.join("host.key");
    let config = folder.join("docklock.toml");
    let profiles = folder.join("profiles");
    fs::create_dir_all(&profiles).map_err(|error| format!("cannot make {}: {error}", profiles.display()))?;
    let few = "extends = \"standard\"\n[limits]\npids_max = 64\n";
    fs::write(profiles.join("few.toml"), few).map_err(|error| format!("cannot write a profile: {error}"))?;
    let text = format!(
        "key_file = {key:?}\nstate_dir = {:?}\nspool_dir = {spool:?}\nprofiles_dir = {profiles:?}\nhost_id = \"spiffe://bpi.local/host/test\"\n{more}",
        state.join("docklock"),
    );
    fs::write(&config, text).map_err(|error| format!("cannot write {}: {error}", config.display()))?;
    let public = folder.join("host.key.pub.pem");
    if world.runtime.starts_with("io.bpi.") && !key.exists() {
        let mut keygen = world.docklock(&config);
        keygen.arg("keygen").arg("--key-file").arg(&key);
        run(keygen, b"", DEADLINE)?.ok()?;
    }
    Ok((config, public))
}

fn write_containerd_config(version: Version, folder: &Path, state: &Path, socket: &Path) -> Result<(), Failure> {
    let cni = folder.join("cni");
    fs::create_dir_all(&cni).map_err(|error| format!("cannot make {}: {error}", cni.display()))?;
    let network = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"ptp","ipam":{"type":"host-local","subnet":"10.88.7.0/24"}}]}"#;
    fs::write(cni.join("10-test.conflist"), network)
        .map_err(|error| format!("cannot write the CNI network: {error}"))?;
    let head = format!(
        "root = {:?}\nstate = {:?}\n[grpc]\n  address = {socket:?}\n",
        folder.join("root"),
        state.join("containerd")
    );
    let pause = crate::image::REFERENCE;
    let annotations =
        "pod_annotations = [\"io.bpi.docklock.*\"]\n        container_annotations = [\"io.bpi.docklock.*\"]";
    let body = match version {
        Version::Debian => format!(
            r#"version = 2
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
{head}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = {cni:?}
  [plugins."io.containerd.grpc.v1.cri".containerd]
        default_runtime_name = "docklock"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.docklock]
        runtime_type = "io.bpi.docklock"
        {annotations}
"#
        ),
        Version::Newer => format!(
            r#"version = 3
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
{head}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
      bin_dirs = ["/usr/lib/cni"]
      conf_dir = {cni:?}
  [plugins."io.containerd.cri.v1.runtime".containerd]
        default_runtime_name = "docklock"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.docklock]
        runtime_type = "io.bpi.docklock"
        {annotations}
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
"#
        ),
    };
    let path = folder.join("containerd.toml");
    fs::write(&path, body).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
