//! futex(2), modelled whole: the kernel's own queues wake in an order that depends on the host.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use super::Answer;
use super::time::read_timespec;
use crate::engine::guest;
use crate::engine::model::futex::{Key, WakeOp};
use crate::engine::task::{Call, Resume, TaskId, Wait};
use crate::engine::{Engine, Fault, Verdict};
use crate::kernel::facts;

const EVERY_BIT: u32 = u32::MAX;
/// The command of a futex operation, without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
const COMMAND: i32 = 0x7f;

impl Engine {
    pub(super) fn futex(&mut self, id: TaskId, call: &Call) -> Answer {
        let [address, op, value, fourth, address2, value3] = call.args;
        let op = op as i32;
        let private = op & libc::FUTEX_PRIVATE_FLAG != 0;
        if address & 3 != 0 {
            return Err(guest::EINVAL.into());
        }
        let (count, count2) = (value as i32, fourth as i32);
        match op & COMMAND {
            libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => self.futex_wait(id, call, op, private),
            command @ (libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET) => {
                let bits = if command == libc::FUTEX_WAKE { EVERY_BIT } else { value3 as u32 };
                if bits == 0 {
                    return Err(guest::EINVAL.into());
                }
                let key = self.futex_key(id, address, private)?;
                Ok(Verdict::Return(self.wake_futex(key, count, bits)))
            }
            command @ (libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE) => {
                let tid = self.tid(id)?;
                if command == libc::FUTEX_CMP_REQUEUE && guest::peek_u32(tid, address)? != value3 as u32 {
                    return Err(Fault(-i64::from(libc::EAGAIN)).into());
                }
                let from = self.futex_key(id, address, private)?;
                let to = self.futex_key(id, address2, private)?;
                let (woken, moved) = self.futexes.requeue(from, to, count, count2)?;
                let total = woken.len() + moved;
                self.wake_all(woken);
                Ok(Verdict::Return(total as i64))
            }
            libc::FUTEX_WAKE_OP => {
                let tid = self.tid(id)?;
                let change = WakeOp::parse(value3 as u32)?;
                let old = guest::peek_u32(tid, address2)?;
                guest::write(tid, address2, &change.apply(old).to_le_bytes())?;
                let first = self.futex_key(id, address, private)?;
                let mut total = self.wake_futex(first, count, EVERY_BIT);
                if change.compare(old) {
                    let second = self.futex_key(id, address2, private)?;
                    total += self.wake_futex(second, count2, EVERY_BIT);
                }
                Ok(Verdict::Return(total))
            }
            _ => Err(Fault(-i64::from(libc::ENOSYS)).into()),
        }
    }

    fn futex_wait(&mut self, id: TaskId, call: &Call, op: i32, private: bool) -> Answer {
        let [address, _, expected, timeout, _, bits] = call.args;
        let tid = self.tid(id)?;
        let bits = if op & COMMAND == libc::FUTEX_WAIT { EVERY_BIT } else { bits as u32 };
        if bits == 0 {
            return Err(guest::EINVAL.into());
        }
        let deadline = match timeout {
            0 => None,
            pointer => {
                let ns = read_timespec(tid, pointer)?;
                let realtime = op & libc::FUTEX_CLOCK_REALTIME != 0;
                let clock = if realtime { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
                let relative = op & COMMAND == libc::FUTEX_WAIT;
                Some(if relative { self.clock.after(ns) } else { self.clock.deadline(clock, ns).unwrap_or(0) })
            }
        };
        if guest::peek_u32(tid, address)? != expected as u32 {
            return Err(Fault(-i64::from(libc::EAGAIN)).into());
        }
        if deadline.is_some_and(|at| at <= self.clock.now()) {
            return Err(Fault(-i64::from(libc::ETIMEDOUT)).into());
        }
        let key = self.futex_key(id, address, private)?;
        self.futexes.wait(id.0, key, bits)?;
        self.block(id, Wait::Futex, deadline);
        Ok(Verdict::Settled)
    }

    /// Wakes up to `count` waiters and says how many.
    fn wake_futex(&mut self, key: Key, count: i32, bits: u32) -> i64 {
        let woken = self.futexes.wake(key, count, bits);
        let number = woken.len() as i64;
        self.wake_all(woken);
        number
    }

    fn wake_all(&mut self, woken: Vec<u32>) {
        for task in woken {
            self.ready(TaskId(task), Resume::Return(0));
        }
    }

    /// What a word is called: by address space, or by file where it lies in a shared mapping and the caller did not say it is private.
    pub(in crate::engine) fn futex_key(&mut self, id: TaskId, address: u64, private: bool) -> Result<Key, Fault> {
        if address & 3 != 0 {
            return Err(guest::EINVAL);
        }
        let Some(task) = self.tasks.get(id) else { return Err(guest::EFAULT) };
        let (tid, process) = (task.tid, task.process);
        let Some(process) = self.tasks.process_mut(process) else { return Err(guest::EFAULT) };
        if !private {
            if process.maps.is_none() {
                process.maps = File::open(format!("/proc/{tid}/maps")).ok();
            }
            if let Some(key) = process.maps.as_ref().and_then(|maps| shared_key(maps, address)) {
                return Ok(key);
            }
        }
        Ok(Key::Private { mm: process.memory, addr: address })
    }
}

/// The file behind a shared mapping; `maps` is an open /proc/pid/maps of the address space.
fn shared_key(mut maps: &File, address: u64) -> Option<Key> {
    match facts::shared_place(maps.as_fd(), address) {
        Ok(place) => place.map(|place| Key::Shared {
            dev: u64::from(place.device.0) << 32 | u64::from(place.device.1),
            ino: place.inode,
            offset: place.offset,
        }),
        // A kernel that tells it only as text.
        Err(_) => {
            let mut text = String::new();
            maps.rewind().ok()?;
            maps.read_to_string(&mut text).ok()?;
            shared_key_of(&text, address)
        }
    }
}

/// The same from the text of /proc/pid/maps (proc_pid_maps(5)).
fn shared_key_of(maps: &str, address: u64) -> Option<Key> {
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let from = u64::from_str_radix(from, 16).ok()?;
        if address < from || address >= u64::from_str_radix(to, 16).ok()? {
            continue;
        }
        if fields.next()?.as_bytes().get(3) != Some(&b's') {
            return None;
        }
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let device = u64::from_str_radix(major, 16).ok()? << 32 | u64::from_str_radix(minor, 16).ok()?;
        let inode = fields.next()?.parse().ok()?;
        return Some(Key::Shared { dev: device, ino: inode, offset: offset + (address - from) });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_named_by_its_file_only_where_its_mapping_is_shared() {
        let maps = "7f10-7f20 rw-s 00000010 00:1a 77 /dev/shm/x\n7f20-7f30 rw-p 00000000 00:00 0 \n";
        assert_eq!(shared_key_of(maps, 0x7f14), Some(Key::Shared { dev: 0x1a, ino: 77, offset: 0x14 }));
        assert_eq!(shared_key_of(maps, 0x7f24), None);
        assert_eq!(shared_key_of(maps, 0x7f30), None);
    }
}
