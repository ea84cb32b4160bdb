//! `docklock oci`: the command line that every OCI runtime has, so that validation suites, engines and benchmarks can drive it.
//!
//! `create` starts a monitor, a process of its own that holds the container, its supervisor and its streams until `delete`; the other
//! subcommands talk to it over a socket. Errors travel back whole.

mod client;
mod create;
mod lifecycle;
mod monitor;
mod protocol;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use docklock::config::Config;
use docklock::task::TaskError;

use crate::failure::Failure;

/// The OCI runtime command line: create, start, state, kill, delete and more
#[derive(Args)]
#[command(long_about = "The command line that every OCI runtime has. Containers made here join boundary `local`.

`create` leaves a monitor process behind that holds the container until `delete`; if it is killed, what it held is killed with it \
and its intent is closed with an abort.

A program that wants one name for its runtime can use a link: called as `docklock-oci`, this command takes these subcommands directly.

Exit status: 0 done, 1 failed, 2 wrong usage; `run` and `exec` end with the status of the process, and with 125 for a failure of their own.

Examples:
  docklock oci create --bundle ./hello --pid-file pid hello
  docklock oci start hello
  docklock oci state hello
  docklock oci kill hello TERM
  docklock oci delete hello

Files:
  /run/docklock/.oci/<id>/   socket and facts of each monitor")]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: liboci_cli::GlobalOpts,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Create(liboci_cli::Create),
    Start(liboci_cli::Start),
    State(liboci_cli::State),
    Kill(liboci_cli::Kill),
    Delete(liboci_cli::Delete),
    Run(liboci_cli::Run),
    Exec(liboci_cli::Exec),
    Ps(liboci_cli::Ps),
    Pause(liboci_cli::Pause),
    Resume(liboci_cli::Resume),
    List(liboci_cli::List),
    Features(liboci_cli::Features),
    Spec(liboci_cli::Spec),
    /// Hold one container (started by `create`; its standard input is the socket of its parent)
    #[command(hide = true)]
    Monitor,
}

/// What every subcommand needs: the configuration, with `--root` in place of its state folder.
pub(crate) struct Setting {
    pub(crate) config: Config,
    /// The configuration file that was named, for the monitor to name it too.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) root: Option<PathBuf>,
}

impl Setting {
    fn new(config_file: Option<PathBuf>, root: Option<PathBuf>) -> Result<Self, Failure> {
        let mut config = Config::load(config_file.as_deref())?;
        let root = match root {
            None => None,
            Some(root) => {
                let absolute = std::path::absolute(&root).map_err(|source| Failure::File {
                    deed: "resolve",
                    path: root,
                    source,
                })?;
                config.state_dir = absolute.clone();
                Some(absolute)
            }
        };
        Ok(Self { config, config_file, root })
    }

    /// Folder of one container's monitor.
    pub(crate) fn home(&self, id: &str) -> Result<PathBuf, Failure> {
        home(&self.config, id)
    }
}

/// Folder of one container's monitor. The id becomes a file name.
pub(crate) fn home(config: &Config, id: &str) -> Result<PathBuf, Failure> {
    let fits = (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits { Ok(monitors(config).join(id)) } else { Err(TaskError::Id { id: id.to_owned() }.into()) }
}

/// Folder of all monitors. A boundary never starts with a dot, so it cannot be the folder of one.
pub(crate) fn monitors(config: &Config) -> PathBuf {
    config.state_dir.join(".oci")
}

pub(crate) fn run(arguments: Arguments, config: Option<PathBuf>) -> Result<u8, Failure> {
    let Arguments { global, action } = arguments;
    let log = global.log.clone();
    let outcome = perform(action, global.root, config);
    if let (Some(log), Err(failure)) = (log, &outcome) {
        write_log(&log, global.log_format.as_deref() == Some("json"), failure)?;
    }
    outcome
}

fn perform(action: Action, root: Option<PathBuf>, config: Option<PathBuf>) -> Result<u8, Failure> {
    let of_run = |failure| Failure::OfRun(Box::new(failure));
    match action {
        Action::Features(_) => show::features(),
        Action::Spec(arguments) => show::spec(&arguments),
        Action::Monitor => monitor::run(config, root),
        Action::Create(arguments) => create::run(&Setting::new(config, root)?, arguments),
        Action::Run(arguments) => {
            let setting = Setting::new(config, root)?;
            create::create_and_run(&setting, arguments).map_err(of_run)
        }
        Action::Start(arguments) => lifecycle::start(&Setting::new(config, root)?, &arguments.container_id),
        Action::State(arguments) => show::state(&Setting::new(config, root)?, &arguments.container_id),
        Action::Kill(arguments) => lifecycle::kill(&Setting::new(config, root)?, &arguments),
        Action::Delete(arguments) => {
            lifecycle::delete(&Setting::new(config, root)?, &arguments.container_id, arguments.force)
        }
        Action::Exec(arguments) => {
            let setting = Setting::new(config, root)?;
            lifecycle::exec(&setting, arguments).map_err(of_run)
        }
        Action::Ps(arguments) => show::ps(&Setting::new(config, root)?, &arguments),
        Action::Pause(arguments) => lifecycle::pause(&Setting::new(config, root)?, &arguments.container_id),
        Action::Resume(arguments) => lifecycle::resume(&Setting::new(config, root)?, &arguments.container_id),
        Action::List(arguments) => show::list(&Setting::new(config, root)?, &arguments),
    }
}

/// Appends a failure to the file that `--log` names, in the form that engines read from runc.
fn write_log(path: &Path, json: bool, failure: &Failure) -> Result<(), Failure> {
    use std::io::Write;
    let failed = |source| Failure::File { deed: "write the log", path: path.to_path_buf(), source };
    let time = docklock::clock::now();
    let message = format!("{}: {}", failure.code(), failure.sentence());
    let line = if json {
        serde_json::json!({ "level": "error", "msg": message, "time": time }).to_string()
    } else {
        format!("time={time} level=error msg={message:?}")
    };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    writeln!(file, "{line}").map_err(failed)
}
