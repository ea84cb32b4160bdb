//! Randomness from the plan's seed: one keyed stream for the whole cage in the order of the calls, so that each opener's bytes follow from
//! what happened before and from nothing else.

use std::os::fd::OwnedFd;

use nix::sys::stat::FileStat;

use super::Answer;
use crate::engine::guest::{self, kind};
use crate::engine::model::random::{KeyStream, getrandom_length};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Trouble, Verdict};

/// Bytes made and copied at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Most bytes one call gets: as the kernel's own limit for /dev/urandom, 32 MiB - 1.
const CALL_BYTES_MAX: u64 = 0x01ff_ffff;
/// Longest vector of buffers (UIO_MAXIOV).
const BUFFERS_MAX: u64 = 1024;
/// Device numbers of /dev/random and /dev/urandom: major 1 (linux/major.h), minors 8 and 9.
const RANDOM: [u64; 2] = [libc::makedev(1, 8), libc::makedev(1, 9)];

/// The streams.
#[derive(Debug)]
pub(in crate::engine) struct Random {
    guests: KeyStream,
    auxiliary: KeyStream,
    identity: KeyStream,
    processor: KeyStream,
    /// Any guest has asked.
    pub used: bool,
    /// Any guest has opened a random device, or was given one. Descriptors outlive programs and travel, so from then on each read is looked at.
    pub opened: bool,
}

impl Random {
    pub(in crate::engine) fn new(seed: &[u8; 32]) -> Self {
        let stream = |opener| KeyStream::new(seed, opener);
        Self {
            guests: stream(0),
            auxiliary: stream(1),
            identity: stream(2),
            processor: stream(3),
            used: false,
            opened: false,
        }
    }

    /// AT_RANDOM of the next program.
    pub(in crate::engine) fn at_random(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.auxiliary.fill(&mut bytes);
        bytes
    }

    /// What rdrand and rdseed give.
    pub(in crate::engine) fn of_processor(&mut self) -> u64 {
        self.processor.next_u64()
    }

    /// A fresh uuid, or the boot's own.
    pub(in crate::engine) fn uuid(&mut self) -> String {
        self.identity.uuid()
    }
}

/// True for the devices that give random bytes.
pub(in crate::engine) fn is_random(stat: &FileStat) -> bool {
    kind(stat) == libc::S_IFCHR && is_random_device(stat.st_rdev)
}

/// The same by the number of a character device.
pub(super) fn is_random_device(number: u64) -> bool {
    RANDOM.contains(&number)
}

impl Engine {
    pub(super) fn getrandom(&mut self, id: TaskId, call: &Call) -> Answer {
        let length = getrandom_length(call.args[1], call.args[2] as u32)?;
        self.fill_random(id, call.args[0], length)
    }

    /// Random bytes for a read(2) or readv(2) on a random device; `None` for any other file.
    pub(super) fn read_random(
        &mut self,
        id: TaskId,
        call: &Call,
        file: &(OwnedFd, FileStat),
    ) -> Result<Option<Verdict>, Trouble> {
        if !is_random(&file.1) {
            return Ok(None);
        }
        if !matches!(call.nr, libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2) {
            return self.fill_random(id, call.args[1], call.args[2]).map(Some);
        }
        let tid = self.tid(id)?;
        let mut total = 0;
        for index in 0..call.args[2].min(BUFFERS_MAX) {
            let buffer: [u8; 16] = guest::peek(tid, call.args[1].wrapping_add(16 * index))?;
            match self.fill_random(id, super::word(&buffer, 0), super::word(&buffer, 8))? {
                Verdict::Return(filled) if filled >= 0 => total += filled,
                other => return Ok(Some(other)),
            }
        }
        Ok(Some(Verdict::Return(total)))
    }

    fn fill_random(&mut self, id: TaskId, address: u64, length: u64) -> Answer {
        let tid = self.tid(id)?;
        self.random.used = true;
        let length = length.min(CALL_BYTES_MAX) as usize;
        let mut buffer = vec![0; length.min(CHUNK_BYTES)];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(CHUNK_BYTES);
            self.random.guests.fill(&mut buffer[..step]);
            if let Err(fault) = guest::write(tid, address.wrapping_add(done as u64), &buffer[..step]) {
                return if done > 0 { Ok(Verdict::Return(done as i64)) } else { Err(fault.into()) };
            }
            done += step;
        }
        Ok(Verdict::Return(done as i64))
    }
}
