//! A specification around one program, for who has a root file system and no bundle.
//!
//! What nobody asks for is the same on every host: user 0, folder /, PATH and HOME, no terminal. The cage narrows it like any other.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde_json::{Value, json};

use crate::failure::Failure;

/// Longest /etc/passwd that is searched for a name, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;
/// What a program gets where its caller says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What containerd gives by default, without what no profile leaves anyway.
const CAPABILITIES: [&str; 12] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What to run.
pub(crate) struct Program<'a> {
    /// Name or path, and arguments.
    pub(crate) argv: &'a [String],
    /// `NAME=VALUE`; one that stands here twice has its last value.
    pub(crate) env: &'a [String],
    /// Working folder.
    pub(crate) workdir: &'a str,
    /// `UID[:GID]` or a name of the root file system's /etc/passwd.
    pub(crate) user: Option<&'a str>,
    /// Whether it gets a terminal.
    pub(crate) terminal: bool,
    /// Folders to mount, as `(container path, host path)`.
    pub(crate) mounts: &'a [(String, String)],
}

/// Who runs it.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    home: String,
}

/// The specification for `program` in `rootfs`.
pub(crate) fn specification(program: &Program<'_>, rootfs: &Path) -> Result<Spec, Failure> {
    let user = match program.user {
        None => User { uid: 0, gid: 0, home: "/root".to_owned() },
        Some(text) => user(text, rootfs)?,
    };
    let broken = |error: serde_json::Error| Failure::System { deed: "write a specification", source: error.into() };
    let mut spec = serde_json::to_value(Spec::default()).map_err(broken)?;
    spec["hostname"] = Value::Null;
    spec["root"] = json!({ "path": rootfs, "readonly": false });
    let sets = ["bounding", "effective", "permitted"].map(|set| (set.to_owned(), json!(CAPABILITIES)));
    spec["process"]["capabilities"] = Value::Object(sets.into_iter().collect());
    spec["process"]["args"] = json!(program.argv);
    spec["process"]["env"] = json!(environment(&user, program));
    spec["process"]["cwd"] = json!(program.workdir);
    spec["process"]["user"] = json!({ "uid": user.uid, "gid": user.gid });
    spec["process"]["terminal"] = json!(program.terminal);
    for (destination, source) in program.mounts {
        let mount = json!({ "destination": destination, "source": source, "type": "bind", "options": ["rbind", "ro"] });
        spec["mounts"].as_array_mut().into_iter().for_each(|mounts| mounts.push(mount.clone()));
    }
    serde_json::from_value(spec).map_err(broken)
}

fn environment(user: &User, program: &Program<'_>) -> Vec<String> {
    let mut env = vec![format!("PATH={PATH}"), format!("HOME={}", user.home)];
    if program.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for entry in program.env {
        let name = entry.split('=').next().unwrap_or(entry);
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    env
}

fn user(text: &str, rootfs: &Path) -> Result<User, Failure> {
    let unknown = |reason: String| Failure::User { user: text.to_owned(), reason };
    let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
    let group = match group {
        None => None,
        Some(group) => Some(group.parse().map_err(|_| unknown("a group is given by its number".to_owned()))?),
    };
    let passwd = passwd(rootfs);
    if let Ok(uid) = name.parse::<u32>() {
        let known = passwd.as_deref().ok().and_then(|passwd| find(passwd, |fields| fields[2].parse() == Ok(uid)));
        let (gid, home) = known.map_or((0, "/".to_owned()), |user| (user.gid, user.home));
        return Ok(User { uid, gid: group.unwrap_or(gid), home });
    }
    let passwd = passwd.map_err(|error| unknown(format!("its /etc/passwd cannot be read: {error}")))?;
    let found = find(&passwd, |fields| fields[0] == name);
    let user = found.ok_or_else(|| unknown("its /etc/passwd does not name it".to_owned()))?;
    Ok(User { gid: group.unwrap_or(user.gid), ..user })
}

/// passwd(5): name:password:uid:gid:comment:home:shell
fn find(passwd: &str, wanted: impl Fn(&[&str]) -> bool) -> Option<User> {
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        if fields.len() < 6 || !wanted(&fields) {
            return None;
        }
        Some(User { uid: fields[2].parse().ok()?, gid: fields[3].parse().ok()?, home: fields[5].to_owned() })
    })
}

/// The root file system's own, whatever links in it say.
fn passwd(rootfs: &Path) -> std::io::Result<String> {
    let root = File::open(rootfs)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(&root, "etc/passwd", flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
    let mut text = String::new();
    File::from(file).take(PASSWD_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// `--seed`: 64 hexadecimal digits are the seed itself, a decimal number its last eight bytes.
pub(crate) fn parse_seed(text: &str) -> Result<[u8; 32], String> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(seed_of(number));
    }
    let mut seed = [0; 32];
    hex::decode_to_slice(text, &mut seed)
        .map_err(|_| "a seed is a decimal number or 64 hexadecimal digits".to_owned())?;
    Ok(seed)
}

/// The seed with that number.
pub(crate) fn seed_of(number: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[24..].copy_from_slice(&number.to_be_bytes());
    seed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbuild:x:1001:1002::/home/build:/bin/sh\nbroken:x\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        dir
    }

    #[test]
    fn a_user_is_a_number_or_a_name_of_the_root_file_system() {
        let dir = root();
        let build = || User { uid: 1001, gid: 1002, home: "/home/build".to_owned() };
        assert_eq!(user("build", dir.path()).unwrap(), build());
        assert_eq!(user("1001", dir.path()).unwrap(), build());
        assert_eq!(user("build:7", dir.path()).unwrap(), User { gid: 7, ..build() });
        assert_eq!(user("4000", dir.path()).unwrap(), User { uid: 4000, gid: 0, home: "/".to_owned() });
        assert_eq!(user("nobody", dir.path()).unwrap_err().code(), "DL0720");
        assert_eq!(user("build:wheel", dir.path()).unwrap_err().code(), "DL0720");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("p")).unwrap();
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        assert!(user("root", dir.path()).is_err(), "the host's own is not asked");
    }

    #[test]
    fn what_is_asked_for_goes_before_what_is_given() {
        let dir = root();
        let argv = ["true".to_owned()];
        let env = ["HOME=/x".to_owned(), "A=1".to_owned(), "A=2".to_owned()];
        let mounts = [("/data".to_owned(), "/srv".to_owned())];
        let program = Program { argv: &argv, env: &env, workdir: "/", user: None, terminal: false, mounts: &mounts };
        let spec = specification(&program, dir.path()).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.env().clone().unwrap(), [&format!("PATH={PATH}"), "HOME=/x", "A=2"]);
        assert_eq!(process.args().clone().unwrap(), argv);
        assert!(spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new("/data")));
        assert_eq!(spec.root().clone().unwrap().readonly(), Some(false));
    }

    #[test]
    fn a_seed_is_a_number_or_all_of_its_digits() {
        assert_eq!(parse_seed("258").unwrap()[30..], [1, 2]);
        assert_eq!(parse_seed(&"ab".repeat(32)).unwrap(), [0xab; 32]);
        for wrong in ["", "-1", "abc", "1.5", &"ab".repeat(31)] {
            assert!(parse_seed(wrong).is_err(), "{wrong}");
        }
    }
}
