//! Large mappings, which the engine places (`model::room`): mmap(2) and mremap(2) made again with an address.

use crate::engine::model::room;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, EngineError, Fault, Trouble, Verdict};
use crate::kernel::tracee::Registers;

use super::Answer;

const FIXED: u64 = libc::MAP_FIXED as u64;
const FIXED_FREE: u64 = libc::MAP_FIXED_NOREPLACE as u64;
const HUGE: u64 = libc::MAP_HUGETLB as u64;
const LOW: u64 = libc::MAP_32BIT as u64;
const MAY_MOVE: u64 = libc::MREMAP_MAYMOVE as u64;
const MOVE_FIXED: u64 = libc::MREMAP_FIXED as u64;
const KEEP_OLD: u64 = libc::MREMAP_DONTUNMAP as u64;
const NO_ROOM: i64 = -(libc::ENOMEM as i64);

/// True for an mmap(2) whose place the engine chooses.
fn is_placed(call: &Call) -> bool {
    call.nr == libc::SYS_mmap && call.args[1] >= room::LARGE_BYTES && call.args[3] & (FIXED | FIXED_FREE | HUGE) == 0
}

impl Engine {
    /// Makes a mapping whose content nobody has to look at.
    pub(in crate::engine) fn map_plainly(&mut self, id: TaskId, call: &Call) -> Answer {
        if !is_placed(call) {
            return Ok(Verdict::Continue);
        }
        if self.make_mapping(id, call)?.is_some() {
            self.release(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// Runs mmap(2) or mprotect(2). The task is stopped afterwards, or gone: then there are no registers.
    pub(in crate::engine) fn make_mapping(&mut self, id: TaskId, call: &Call) -> Result<Option<Registers>, Trouble> {
        if !is_placed(call) {
            return Ok(self.hook(id)?);
        }
        let [asked, length, protection, flags, fd, offset] = call.args;
        let place = self.room(id, length, asked, flags & LOW != 0)?;
        let Some(stopped) = self.stop_instead(id)? else { return Ok(None) };
        let args = [place, length, protection, flags | FIXED_FREE, fd, offset];
        Ok(self.make_call(id, &stopped, &Call { args, ..*call })?)
    }

    /// mremap(2): in place if that is possible, else where the engine says.
    pub(super) fn move_mapping(&mut self, id: TaskId, call: &Call) -> Answer {
        let [old, old_length, length, flags, ..] = call.args;
        let may_stay = old_length != 0 && flags & KEEP_OLD == 0;
        let place = match self.room(id, length, 0, false) {
            Ok(place) => Some(place),
            Err(Trouble::Guest(_)) if may_stay => None,
            Err(trouble) => return Err(trouble),
        };
        let Some(stopped) = self.stop_instead(id)? else { return Ok(Verdict::Settled) };
        let in_place = may_stay.then_some([old, old_length, length, flags & !MAY_MOVE, 0, 0]);
        let moved = place.map(|place| [old, old_length, length, flags | MOVE_FIXED, place, 0]);
        for args in [in_place, moved].into_iter().flatten() {
            match self.make_call(id, &stopped, &Call { args, ..*call })? {
                Some(after) if after.rax as i64 == NO_ROOM => {}
                Some(_) => break,
                None => return Ok(Verdict::Settled),
            }
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// Where a large mapping goes. Where there is no room it fails as in the kernel.
    fn room(&self, id: TaskId, length: u64, asked: u64, low: bool) -> Result<u64, Trouble> {
        let maps = match std::fs::read_to_string(format!("/proc/{}/maps", self.tid(id)?)) {
            Ok(maps) => maps,
            // It was killed meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => String::new(),
            Err(source) => return Err(EngineError::Edge { deed: "read the mappings of a program", source }.into()),
        };
        room::place(&room::taken(&maps), length, asked, low).ok_or(Fault(NO_ROOM).into())
    }
}
