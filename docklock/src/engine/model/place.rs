//! Places below /proc: the way there, name by name, and which of them lead on to somewhere else.
//!
//! A place is spelled with numbers: `self` and `thread-self` are links and are followed like any other. Whoever walks a path enters and leaves names
//! here as long as the path stays below /proc; a link of a task (`cwd`, `fd/3`) leads to a file that only the kernel knows.
//! The inode number of a place follows from its name, because the kernel makes the inodes of /proc anew whenever it has forgotten them.
//! Absent on purpose: whether a task or a file exists.

/// The longest decimal number of a task.
const DIGITS_MAX: usize = 10;
/// Numbers of places lie above every number that [`super::metadata`] hands out, and above those of the kernel's /proc.
const INO_BASE: u64 = 1 << 41;

/// Who looks: `self` and `thread-self` mean this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Number of its process in the cage.
    pub process: u32,
    /// Its own number.
    pub thread: u32,
}

/// Where a symbolic link below /proc leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// To this place.
    Place(Place),
    /// To what the kernel has behind this file of a task.
    Task {
        /// The task.
        number: u32,
        /// `cwd`, `root`, `exe` or `fd/N`.
        file: String,
    },
}

/// What a place is, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// /proc: processes, and the files of [`ROOT`].
    Root,
    /// That of a task: the files of [`TASK`], and `task` if it is a process.
    Task {
        /// It is a process.
        process: bool,
    },
    /// `task`, `fd` or `fdinfo`: what the kernel lists there.
    Kernel,
    /// `ns`: the links of [`NAMESPACES`].
    Namespaces,
}

/// A name in a folder and its `DT_*` of readdir(3).
pub type Name = (&'static str, u8);

const DIR: u8 = libc::DT_DIR;
const REG: u8 = libc::DT_REG;
const LNK: u8 = libc::DT_LNK;

/// The names in /proc beside the processes. Files below /proc/sys can be opened and not listed.
pub const ROOT: [Name; 20] = [
    ("cmdline", REG),
    ("cpuinfo", REG),
    ("devices", REG),
    ("diskstats", REG),
    ("filesystems", REG),
    ("loadavg", REG),
    ("meminfo", REG),
    ("misc", REG),
    ("modules", REG),
    ("mounts", LNK),
    ("partitions", REG),
    ("self", LNK),
    ("stat", REG),
    ("swaps", REG),
    ("thread-self", LNK),
    ("uptime", REG),
    ("version", REG),
    ("vmstat", REG),
    (".", DIR),
    ("..", DIR),
];

/// The names in the folder of a task, but for `task`.
pub const TASK: [Name; 38] = [
    (".", DIR),
    ("..", DIR),
    ("auxv", REG),
    ("cgroup", REG),
    ("clear_refs", REG),
    ("cmdline", REG),
    ("comm", REG),
    ("coredump_filter", REG),
    ("cwd", LNK),
    ("environ", REG),
    ("exe", LNK),
    ("fd", DIR),
    ("fdinfo", DIR),
    ("gid_map", REG),
    ("io", REG),
    ("limits", REG),
    ("loginuid", REG),
    ("maps", REG),
    ("mem", REG),
    ("mountinfo", REG),
    ("mounts", REG),
    ("mountstats", REG),
    ("ns", DIR),
    ("numa_maps", REG),
    ("oom_adj", REG),
    ("oom_score_adj", REG),
    ("personality", REG),
    ("root", LNK),
    ("sched", REG),
    ("schedstat", REG),
    ("setgroups", REG),
    ("smaps", REG),
    ("smaps_rollup", REG),
    ("stat", REG),
    ("statm", REG),
    ("status", REG),
    ("uid_map", REG),
    ("wchan", REG),
];

/// The names in `ns` and what they lead to: the numbers that the first namespaces of a kernel have (PROC_*_INIT_INO, linux/proc_ns.h).
pub const NAMESPACES: [(&str, &str); 10] = [
    ("cgroup", "cgroup:[4026531835]"),
    ("ipc", "ipc:[4026531839]"),
    ("mnt", "mnt:[4026531832]"),
    ("net", "net:[4026531833]"),
    ("pid", "pid:[4026531836]"),
    ("pid_for_children", "pid:[4026531836]"),
    ("time", "time:[4026531834]"),
    ("time_for_children", "time:[4026531834]"),
    ("user", "user:[4026531837]"),
    ("uts", "uts:[4026531838]"),
];

/// A place below /proc; the empty way is /proc itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    parts: Vec<Vec<u8>>,
}

impl Place {
    /// The place that a path of the kernel's own making names (readlink(2) of a descriptor): absolute, without links, `.` and `..`.
    /// `None` when it does not lie below /proc.
    pub fn of_path(path: &[u8]) -> Option<Self> {
        let rest = path.strip_prefix(b"/proc")?;
        if !matches!(rest.first(), None | Some(b'/')) {
            return None;
        }
        let parts = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        Some(Self { parts: parts.map(<[u8]>::to_vec).collect() })
    }

    /// Goes on to a name.
    pub fn enter(&mut self, name: &[u8]) {
        self.parts.push(name.to_vec());
    }

    /// Goes back by one. False: this was /proc, and the way leads out of it.
    pub fn leave(&mut self) -> bool {
        self.parts.pop().is_some()
    }

    /// The names on the way.
    pub fn parts(&self) -> Vec<&[u8]> {
        self.parts.iter().map(Vec::as_slice).collect()
    }

    /// Where the link at this place leads, if it is one.
    pub fn link(&self, caller: Caller) -> Option<Link> {
        let place = |text: String| Some(Link::Place(Self { parts: text.split('/').map(|part| part.into()).collect() }));
        match self.parts().as_slice() {
            [b"self"] => return place(caller.process.to_string()),
            [b"thread-self"] => return place(format!("{}/task/{}", caller.process, caller.thread)),
            [b"mounts"] => return place(format!("{}/mounts", caller.process)),
            _ => {}
        }
        let (number, tail) = self.task()?;
        let file = match tail.as_slice() {
            [name @ (b"cwd" | b"root" | b"exe")] => String::from_utf8_lossy(name).into_owned(),
            [b"fd", descriptor] => format!("fd/{}", numbered(descriptor)?),
            _ => return None,
        };
        Some(Link::Task { number, file })
    }

    /// The task whose folder this is or lies below, and the names below its folder.
    pub fn task(&self) -> Option<(u32, Vec<&[u8]>)> {
        let parts = self.parts();
        let (first, tail) = parts.split_first()?;
        let process = number(first)?;
        if let [b"task", thread, tail @ ..] = tail
            && let Some(thread) = number(thread)
        {
            return Some((thread, tail.to_vec()));
        }
        Some((process, tail.to_vec()))
    }

    /// The folder that this is, if it can be one.
    pub fn folder(&self) -> Option<Folder> {
        if self.parts.is_empty() {
            return Some(Folder::Root);
        }
        let (_, tail) = self.task()?;
        match tail.as_slice() {
            [] => Some(Folder::Task { process: self.parts.len() == 1 }),
            [b"fd" | b"fdinfo"] => Some(Folder::Kernel),
            [b"task"] if self.parts.len() == 2 => Some(Folder::Kernel),
            [b"ns"] => Some(Folder::Namespaces),
            _ => None,
        }
    }

    /// The path, from the root of the cage.
    pub fn path(&self) -> Vec<u8> {
        let mut path = b"/proc".to_vec();
        for part in &self.parts {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }

    /// The inode number of this place.
    pub fn ino(&self) -> u64 {
        ino(&self.path())
    }

    /// The inode number of a name in this folder.
    pub fn ino_of(&self, name: &[u8]) -> u64 {
        let mut place = self.clone();
        match name {
            b"." => {}
            // The parent of /proc is the root of the cage: the caller's to number.
            b".." => {
                place.leave();
            }
            name => place.enter(name),
        }
        place.ino()
    }
}

fn ino(path: &[u8]) -> u64 {
    let mut low = [0; 8];
    low[..5].copy_from_slice(&blake3::hash(path).as_bytes()[..5]);
    INO_BASE | u64::from_le_bytes(low)
}

/// A task number as the kernel reads it in a path: decimal, no sign, no leading zero.
pub fn number(part: &[u8]) -> Option<u32> {
    if part.first() == Some(&b'0') { None } else { numbered(part) }
}

/// The number of a descriptor likewise, which may be 0.
pub fn numbered(part: &[u8]) -> Option<u32> {
    let plain = !part.is_empty() && part.len() <= DIGITS_MAX && part.iter().all(u8::is_ascii_digit);
    if !plain || (part.len() > 1 && part[0] == b'0') {
        return None;
    }
    std::str::from_utf8(part).ok()?.parse().ok()
}

/// A link's text with the number in brackets replaced: `pipe:[77]` carries the host's inode number (proc_pid_fd(5)). `None`: it has none.
pub fn renumbered(text: &[u8], ino: u64) -> Option<Vec<u8>> {
    let open = text.iter().position(|byte| *byte == b'[')?;
    let digits = text.get(open + 1..text.len().checked_sub(1)?)?;
    let kind = text[..open].strip_suffix(b":")?;
    let named = !kind.is_empty() && kind.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
    if !named || text.last() != Some(&b']') || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some([&text[..=open], ino.to_string().as_bytes(), b"]"].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const CALLER: Caller = Caller { process: 5, thread: 7 };

    fn place(path: &str) -> Place {
        Place::of_path(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_place_is_below_proc() {
        assert_eq!(place("/proc").path(), b"/proc");
        assert_eq!(place("/proc/5/fd/").path(), b"/proc/5/fd");
        for path in ["/", "/process", "/sys", "", "proc"] {
            assert_eq!(Place::of_path(path.as_bytes()), None, "{path}");
        }
        let mut at = place("/proc/5");
        at.enter(b"stat");
        assert_eq!(at.path(), b"/proc/5/stat");
        assert!(at.leave() && at.leave() && !at.leave());
    }

    #[test]
    fn self_is_a_number_and_a_link_of_a_task_is_the_kernels() {
        let inside = |path| Some(Link::Place(place(path)));
        assert_eq!(place("/proc/self").link(CALLER), inside("/proc/5"));
        assert_eq!(place("/proc/thread-self").link(CALLER), inside("/proc/5/task/7"));
        assert_eq!(place("/proc/mounts").link(CALLER), inside("/proc/5/mounts"));
        let task = |number, file: &str| Some(Link::Task { number, file: file.to_owned() });
        assert_eq!(place("/proc/9/cwd").link(CALLER), task(9, "cwd"));
        assert_eq!(place("/proc/9/task/11/fd/0").link(CALLER), task(11, "fd/0"));
        for path in
            ["/proc", "/proc/9", "/proc/9/fd", "/proc/9/fd/01", "/proc/09/cwd", "/proc/9/ns/net", "/proc/9/stat"]
        {
            assert_eq!(place(path).link(CALLER), None, "{path}");
        }
    }

    #[test]
    fn folders_are_known_by_name() {
        assert_eq!(place("/proc").folder(), Some(Folder::Root));
        assert_eq!(place("/proc/5").folder(), Some(Folder::Task { process: true }));
        assert_eq!(place("/proc/5/task/6").folder(), Some(Folder::Task { process: false }));
        assert_eq!(place("/proc/5/task").folder(), Some(Folder::Kernel));
        assert_eq!(place("/proc/5/task/6/task").folder(), None);
        assert_eq!(place("/proc/5/ns").folder(), Some(Folder::Namespaces));
        assert_eq!(place("/proc/5/stat").folder(), None);
    }

    #[test]
    fn the_number_of_a_place_follows_from_its_name() {
        assert_eq!(place("/proc/5").ino_of(b"stat"), place("/proc/5/stat").ino());
        assert_eq!(place("/proc/5/fd").ino_of(b".."), place("/proc/5").ino());
        assert_ne!(place("/proc/5").ino(), place("/proc/6").ino());
        assert!(place("/proc").ino() >= INO_BASE);
    }

    #[test]
    fn only_a_number_in_brackets_is_replaced() {
        assert_eq!(renumbered(b"pipe:[77]", 1001).unwrap(), b"pipe:[1001]");
        for text in [
            "/tmp/a:[7]",
            "anon_inode:[eventpoll]",
            "anon_inode:inotify",
            "pipe:[]",
            ":[7]",
            "",
            "[7]",
            "pipe:[7] (deleted)",
        ] {
            assert_eq!(renumbered(text.as_bytes(), 1), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in proptest::collection::vec(any::<u8>(), 0..60), tail in "[/a-z0-9.]{0,40}") {
            renumbered(&path, 1);
            for path in [path, format!("/proc/{tail}").into_bytes()] {
                if let Some(place) = Place::of_path(&path) {
                    place.link(CALLER);
                    place.folder();
                    place.ino_of(&path);
                }
            }
        }
    }
}
