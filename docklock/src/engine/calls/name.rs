//! Names that the kernel would draw for a socket: free ports and abstract addresses, which are random there (ip(7), unix(7)).
//!
//! Whoever binds without saying to what, or uses a socket that has no name yet, gets the next free one of the cage's own row.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Answer;
use super::path::Named;
use crate::engine::guest::{self, kind};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Verdict};
use crate::kernel::socket;

/// The row of ports, as /proc/sys/net/ipv4/ip_local_port_range shows it.
const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// Abstract names that an autobind(7) row has: five hexadecimal digits.
const ABSTRACT_NAMES: u32 = 1 << 20;
/// Bytes of `sa_family_t`, of `struct sockaddr_in`, and of what counts of `struct sockaddr_in6`.
const FAMILY_BYTES: usize = 2;
const INET_BYTES: usize = 16;
const INET6_BYTES: usize = 28;
/// Longest name that is looked at.
const NAME_BYTES_MAX: u64 = 128;

/// Where both rows are.
#[derive(Debug, Default)]
pub(in crate::engine) struct Names {
    ports: u16,
    abstracts: u32,
}

impl Names {
    fn next_port(&mut self) -> u16 {
        let port = PORTS.start() + self.ports;
        self.ports = (self.ports + 1) % (PORTS.end() - PORTS.start() + 1);
        port
    }

    /// The kernel's form of an address of its own choice: a zero and five digits.
    fn next_abstract(&mut self) -> Vec<u8> {
        let digits = format!("{:05x}", self.abstracts);
        self.abstracts = (self.abstracts + 1) % ABSTRACT_NAMES;
        [&(libc::AF_UNIX as u16).to_ne_bytes()[..], &[0], digits.as_bytes()].concat()
    }
}

impl Engine {
    /// bind(2): a name that leaves the choice to the kernel is chosen here; any other the kernel judges.
    pub(super) fn bind(&mut self, id: TaskId, call: &Call) -> Answer {
        let length = call.args[2] & 0xffff_ffff;
        if length > NAME_BYTES_MAX {
            return self.try_now(id);
        }
        let Some((fd, stat)) = self.file(id, call.args[0] as i32) else { return self.try_now(id) };
        if kind(&stat) != libc::S_IFSOCK {
            return self.try_now(id);
        }
        let mut name = vec![0; length as usize];
        guest::read(self.tid(id)?, call.args[1], &mut name)?;
        if let Some(path) = path_of(&name) {
            return self.bind_path(id, path);
        }
        // A socket of another family than its name says so itself.
        if !leaves_the_choice(&name) || family_of(&socket::name(fd.as_fd()).unwrap_or_default()) != family_of(&name) {
            return self.try_now(id);
        }
        let told = self.bind_to_next(&fd, &name).map_or_else(|error| negative(&error), |()| 0);
        Ok(Verdict::Return(told))
    }

    /// A socket in a folder is a file that is made.
    fn bind_path(&mut self, id: TaskId, path: &[u8]) -> Answer {
        let spot = self.spot(id, &Named { folder: libc::AT_FDCWD, path, follow: false })?;
        let now = self.clock.now();
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0
            && let Some(spot) = &spot
        {
            self.made_at(spot, now);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// Before a call that gives a nameless socket a name on its way: listen, connect, send.
    pub(super) fn name_before_use(&mut self, id: TaskId, number: i32) {
        let Some((fd, stat)) = self.file(id, number) else { return };
        if kind(&stat) != libc::S_IFSOCK {
            return;
        }
        let Ok(name) = socket::name(fd.as_fd()) else { return };
        let nameless = match family_of(&name) {
            libc::AF_UNIX => name.len() == FAMILY_BYTES && socket::passes_credentials(fd.as_fd()),
            _ => leaves_the_choice(&name),
        };
        // If none can be given the kernel says why, when it tries.
        if nameless && self.bind_to_next(&fd, &name).is_err() {
            self.escape("a socket was named by the kernel".to_owned());
        }
    }

    fn bind_to_next(&mut self, fd: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let tries =
            if family_of(name) == libc::AF_UNIX { ABSTRACT_NAMES } else { u32::from(PORTS.end() - PORTS.start()) + 1 };
        for _ in 0..tries {
            let wanted = if family_of(name) == libc::AF_UNIX {
                self.socket_names.next_abstract()
            } else {
                let mut wanted = name.to_vec();
                wanted[FAMILY_BYTES..FAMILY_BYTES + 2].copy_from_slice(&self.socket_names.next_port().to_be_bytes());
                wanted
            };
            match socket::bind(fd.as_fd(), &wanted) {
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {}
                told => return told,
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
    }
}

fn family_of(name: &[u8]) -> i32 {
    name.get(..FAMILY_BYTES).map_or(libc::AF_UNSPEC, |bytes| i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])))
}

/// True for a name by which the kernel may choose: port 0, or a family of AF_UNIX and nothing more.
fn leaves_the_choice(name: &[u8]) -> bool {
    match family_of(name) {
        libc::AF_UNIX => name.len() == FAMILY_BYTES,
        libc::AF_INET => name.len() >= INET_BYTES && name[FAMILY_BYTES..FAMILY_BYTES + 2] == [0, 0],
        libc::AF_INET6 => name.len() >= INET6_BYTES && name[FAMILY_BYTES..FAMILY_BYTES + 2] == [0, 0],
        _ => false,
    }
}

/// The path that a name of AF_UNIX gives a socket (unix(7)).
fn path_of(name: &[u8]) -> Option<&[u8]> {
    let path = name.get(FAMILY_BYTES..).filter(|_| family_of(name) == libc::AF_UNIX)?;
    path.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())
}

fn negative(error: &io::Error) -> i64 {
    -i64::from(error.raw_os_error().unwrap_or(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_says_what_it_wants_is_the_kernels_to_judge() {
        let inet = |port: u16| {
            let mut name = vec![0; INET_BYTES];
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&port.to_be_bytes());
            name
        };
        assert!(leaves_the_choice(&inet(0)));
        assert!(!leaves_the_choice(&inet(80)));
        assert!(!leaves_the_choice(&inet(0)[..8]));
        assert!(leaves_the_choice(&(libc::AF_UNIX as u16).to_ne_bytes()));
        assert!(!leaves_the_choice(b"\x01\x00/tmp/socket"));
        assert!(!leaves_the_choice(b""));
        assert_eq!(path_of(b"\x01\x00/tmp/socket\0\0"), Some(&b"/tmp/socket"[..]));
        for name in [&b"\x01\x00"[..], b"\x01\x00\x0000000", b"\x02\x00/tmp/x", b""] {
            assert_eq!(path_of(name), None);
        }
    }

    #[test]
    fn the_rows_are_the_same_in_every_run_and_begin_again_at_their_ends() {
        let mut names = Names::default();
        assert_eq!([names.next_port(), names.next_port()], [32_768, 32_769]);
        assert_eq!(names.next_abstract(), b"\x01\x00\x0000000");
        names.ports = PORTS.end() - PORTS.start();
        names.abstracts = ABSTRACT_NAMES - 1;
        assert_eq!([names.next_port(), names.next_port()], [60_999, 32_768]);
        assert_eq!(names.next_abstract(), b"\x01\x00\x00fffff");
        assert_eq!(names.next_abstract(), b"\x01\x00\x0000000");
    }
}
