//! wait(2) and exit(2).

use nix::errno::Errno;
use nix::unistd::Pid;

use super::Answer;
use super::time::rusage;
use crate::engine::guest;
use crate::engine::task::{Call, ProcessId, TaskId, Wait};
use crate::engine::{Engine, EngineError, Verdict};

/// Which children a wait is for (waitid(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    Process(u32),
    Group(Option<u32>),
}

impl Engine {
    /// The kernel reaps; the engine only knows when there is somebody to reap, and parks the caller until then.
    pub(super) fn wait(&mut self, id: TaskId, call: &Call) -> Answer {
        let Some(own) = self.tasks.get(id).map(|task| task.process) else { return Ok(Verdict::Settled) };
        let by_id = call.nr == libc::SYS_waitid;
        let (options, usage) = if by_id { (call.args[3], call.args[4]) } else { (call.args[2], call.args[3]) };
        let options = options as i32;
        let wanted = if by_id {
            match call.args[0] as u32 {
                libc::P_ALL => Wanted::Any,
                libc::P_PID => Wanted::Process(call.args[1] as u32),
                libc::P_PGID => Wanted::Group((call.args[1] != 0).then_some(call.args[1] as u32)),
                // P_PIDFD: whoever it names, the kernel tries.
                _ => return self.try_now(id),
            }
        } else {
            match call.args[0] as i32 {
                -1 => Wanted::Any,
                0 => Wanted::Group(None),
                pid if pid > 0 => Wanted::Process(pid.unsigned_abs()),
                group => Wanted::Group(Some(group.unsigned_abs())),
            }
        };
        let (any, zombie, stopped) = self.children(own, wanted);
        let settled = zombie || !any || options & libc::WNOHANG != 0 || (stopped && options & libc::WUNTRACED != 0);
        if !settled {
            self.block(id, Wait::Child, None);
            return Ok(Verdict::Settled);
        }
        if usage == 0 {
            return Ok(Verdict::Continue);
        }
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax as i64 >= 0 {
            let tid = self.tid(id)?;
            // The kernel has just written there itself.
            let rewritten = guest::write(tid, usage, &rusage(0));
            self.must_be_rewritten(rewritten);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// Whether there is a child as wanted, one that has ended, and one that is stopped. Children that were reaped are forgotten.
    fn children(&mut self, own: ProcessId, wanted: Wanted) -> (bool, bool, bool) {
        let (mut any, mut zombie, mut stopped) = (false, false, false);
        let own_pid = self.tasks.process(own).map(|process| process.pid);
        let mut reaped = Vec::new();
        for (child, facts) in self.tasks.processes() {
            if facts.parent != Some(own) {
                continue;
            }
            if facts.zombie && nix::sys::signal::kill(facts.pid, None) == Err(Errno::ESRCH) {
                reaped.push(child);
                continue;
            }
            let meant = match wanted {
                Wanted::Any => true,
                Wanted::Process(number) => facts.number == number,
                Wanted::Group(None) => group(facts.pid) == own_pid.and_then(group),
                Wanted::Group(Some(number)) => group_number(facts.pid) == Some(number),
            };
            if meant {
                any = true;
                zombie |= facts.zombie;
                stopped |= self.tasks.of_process(child).iter().any(|task| {
                    let task = self.tasks.get(*task);
                    task.is_some_and(|task| matches!(task.state, crate::engine::State::Blocked(Wait::Stopped)))
                });
            }
        }
        for child in reaped {
            self.tasks.remove_process(child);
        }
        (any, zombie, stopped)
    }

    /// The end of one thread. Nobody else runs before the kernel has cleared its word and told its parent.
    pub(super) fn exit(&mut self, id: TaskId, _call: &Call) -> Answer {
        self.note_shared_clear_tid(id);
        let Some((tid, process)) = self.tasks.get(id).map(|task| (task.tid, task.process)) else {
            return Ok(Verdict::Settled);
        };
        self.ears.hush().map_err(EngineError::edge("hush the tasks"))?;
        self.let_through(id)?;
        let Some((leader, threads)) = self.tasks.process(process).map(|process| (process.pid, process.tasks)) else {
            return Ok(Verdict::Settled);
        };
        if tid == leader && threads > 1 {
            // It stays a zombie until the others are gone, and is told only then.
            self.wait_for_zombie_leader(tid);
            let memory = self.tasks.process(process).map_or(0, |process| process.memory);
            if let Some(address) = self.tasks.get_mut(id).and_then(|task| task.clear_tid.take()) {
                self.wake_futex_of(memory, address);
            }
            self.block(id, Wait::Stopped, None);
            return Ok(Verdict::Settled);
        }
        // With the last thread a first one that ended before is told.
        let ended_before = |other: &TaskId| {
            let task = self.tasks.get(*other);
            task.is_some_and(|task| task.tid == leader && task.call.is_none()) && is_zombie(leader)
        };
        if self.tasks.of_process(process).iter().all(|other| *other == id || ended_before(other)) {
            self.reap_process(process)?;
        } else {
            self.reap(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// The end of a whole process.
    pub(super) fn exit_group(&mut self, id: TaskId) -> Answer {
        self.note_shared_clear_tid(id);
        let Some(process) = self.tasks.get(id).map(|task| task.process) else { return Ok(Verdict::Settled) };
        self.ears.hush().map_err(EngineError::edge("hush the tasks"))?;
        self.let_through(id)?;
        // No word is cleared for the others: their memory goes with them.
        for other in self.tasks.of_process(process) {
            if other != id
                && let Some(task) = self.tasks.get_mut(other)
            {
                task.clear_tid = None;
            }
        }
        self.reap_process(process)?;
        Ok(Verdict::Settled)
    }

    /// A word to clear that lies in shared memory has a name of its own while its task lives.
    fn note_shared_clear_tid(&mut self, id: TaskId) {
        let Some((address, process)) = self.tasks.get(id).and_then(|task| Some((task.clear_tid?, task.process))) else {
            return;
        };
        // The kernel clears and wakes nothing when nobody else has the address space (mm_release in kernel/fork.c).
        let Some(memory) = self.tasks.process(process).map(|process| process.memory) else { return };
        let sharers = self.tasks.processes().filter(|(_, process)| process.memory == memory);
        if sharers.map(|(_, process)| process.tasks).sum::<u32>() < 2 {
            return;
        }
        if let Ok(key @ crate::engine::model::futex::Key::Shared { .. }) = self.futex_key(id, address, false) {
            for woken in self.futexes.wake(key, 1, u32::MAX) {
                self.ready(TaskId(woken), crate::engine::Resume::Return(0));
            }
        }
    }
}

fn group(pid: Pid) -> Option<i32> {
    nix::unistd::getpgid(Some(pid)).ok().map(Pid::as_raw)
}

fn group_number(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpgid:"))?.split_ascii_whitespace().next_back()?.parse().ok()
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
