//! A PostgreSQL server for this test: in a folder of its own, on a socket, run by an unprivileged user, as it insists.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::Place;

/// Runs a server until its standard input ends, which it does with the test, however that ends; then removes the server's folder.
const KEEPER: &str = r#"
folder="$1"; shift
"$@" </dev/null >"$folder/log" 2>&1 &
server=$!
read -r _
kill -INT "$server"
wait "$server"
rm -rf "$folder"
"#;

struct Server {
    folder: PathBuf,
    /// Holds the end of the keeper's standard input.
    _keeper: Child,
}

/// The folder with `postgres` and `initdb` that Debian's package brings.
fn programs() -> Result<PathBuf, String> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    found.sort_by_key(|entry| entry.file_name());
    let folder =
        found.iter().rev().map(|entry| entry.path().join("bin")).find(|folder| folder.join("postgres").exists());
    folder.ok_or("the Debian package postgresql is not installed".to_owned())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// What comes before a program that must not be root.
const AS_NOBODY: [&str; 5] = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"];

fn unprivileged(program: &Path) -> Vec<PathBuf> {
    let before: &[&str] = if is_root() { &AS_NOBODY } else { &[] };
    before.iter().map(PathBuf::from).chain([program.to_owned()]).collect()
}

fn start() -> Result<Server, String> {
    let programs = programs()?;
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let folder = tempfile::Builder::new().prefix("bpi-class-").tempdir().map_err(said("a folder"))?.keep();
    if is_root() {
        Command::new("chown").arg("nobody:nogroup").arg(&folder).status().map_err(said("chown"))?;
    }
    let data = folder.join("data");
    let initdb = unprivileged(&programs.join("initdb"));
    let made = Command::new(&initdb[0])
        .args(&initdb[1..])
        .args(["--auth=trust", "--username=agent", "--encoding=UTF8", "--locale=C", "--pgdata"])
        .arg(&data)
        .stdin(Stdio::null())
        .current_dir("/")
        .output()
        .map_err(said("initdb"))?;
    if !made.status.success() {
        return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(&folder)
        .args(unprivileged(&programs.join("postgres")))
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&folder)
        .args(["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=32MB"])
        .stdin(Stdio::piped())
        .current_dir("/")
        .spawn()
        .map_err(said("sh"))?;
    let begin = Instant::now();
    while !sql(&programs, &folder, "SELECT 1") {
        if begin.elapsed() > Duration::from_secs(60) || keeper.try_wait().is_ok_and(|ended| ended.is_some()) {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            return Err(format!("postgres did not start: {log}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Server { folder, _keeper: keeper })
}

fn sql(programs: &Path, folder: &Path, statement: &str) -> bool {
    let mut command = Command::new(programs.join("psql"));
    command.args(["--no-psqlrc", "--quiet", "--username=agent", "--dbname=postgres", "--command", statement, "--host"]);
    command.arg(folder).output().is_ok_and(|done| done.status.success())
}

/// An empty database of that name, or why there is none.
pub fn database(name: &str) -> Result<Place, String> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    let server = SERVER.get_or_init(start).as_ref().map_err(Clone::clone)?;
    let name = &name[..name.len().min(50)];
    if !sql(&programs()?, &server.folder, &format!("CREATE DATABASE {name}")) {
        return Err(format!("the database {name} was not made"));
    }
    let host = server.folder.display().to_string().replace('/', "%2F");
    Ok(Place { url: format!("postgres://agent@{host}/{name}"), _folder: None })
}
