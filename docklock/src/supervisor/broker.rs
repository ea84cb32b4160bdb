//! The pure half of the supervisor: what answer a call gets, and the counts that go into the receipt.
//!
//! No descriptor, no clock, no memory of the guest. The next stage (virtual time, entropy, metadata) grows here: it adds state to
//! [`Broker`] and arms to [`Broker::decide`], and the listener's loop stays as it is.
//! Always true: a call that the policy denies is never continued, whatever else is decided.

use std::collections::BTreeMap;

use bpi_policies::{Call, Class, Policy};
use bpi_protocol::run::CallCount;

use crate::kernel::Reply;

/// Decides about intercepted calls and counts them.
#[derive(Debug)]
pub struct Broker {
    policy: Policy,
    denied: BTreeMap<(&'static str, &'static str), u64>,
    answered: BTreeMap<&'static str, u64>,
}

/// A decision, not yet counted: the caller may be dead before it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the kernel shall do.
    pub reply: Reply,
    tally: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tally {
    Denied { syscall: &'static str, errno: &'static str },
    Answered { syscall: &'static str },
}

impl Broker {
    /// A broker that has seen nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, denied: BTreeMap::new(), answered: BTreeMap::new() }
    }

    /// What shall be answered to `call`.
    pub fn decide(&self, call: &Call) -> Decision {
        let syscall = self.policy.name_of(call);
        match self.policy.decide(call) {
            Class::Deny(errno) => {
                Decision { reply: Reply::Errno(errno.number()), tally: Tally::Denied { syscall, errno: errno.name() } }
            }
            // A call of class allow passes the filter unseen. One that arrives here disagrees with its own filter: fail closed.
            Class::Allow => {
                Decision { reply: Reply::Errno(libc::ENOSYS), tally: Tally::Denied { syscall, errno: "ENOSYS" } }
            }
            Class::Virtual => Decision { reply: Reply::Continue, tally: Tally::Answered { syscall } },
        }
    }

    /// Counts a decision whose answer has reached the caller.
    pub fn count(&mut self, decision: Decision) {
        let counter = match decision.tally {
            Tally::Denied { syscall, errno } => self.denied.entry((syscall, errno)).or_default(),
            Tally::Answered { syscall } => self.answered.entry(syscall).or_default(),
        };
        *counter = counter.saturating_add(1);
    }

    /// Refused calls, sorted by name, then errno.
    pub fn denied(&self) -> Vec<CallCount> {
        self.denied
            .iter()
            .map(|((syscall, errno), count)| CallCount {
                syscall: (*syscall).to_owned(),
                errno: Some((*errno).to_owned()),
                count: *count,
            })
            .collect()
    }

    /// Answered calls, sorted by name.
    pub fn answered(&self) -> Vec<CallCount> {
        self.answered
            .iter()
            .map(|(syscall, count)| CallCount { syscall: (*syscall).to_owned(), errno: None, count: *count })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bpi_policies::AUDIT_ARCH_X86_64;

    use super::*;

    fn call(nr: libc::c_long) -> Call {
        Call { arch: AUDIT_ARCH_X86_64, nr: nr as i32, args: [0; 6] }
    }

    fn broker() -> Broker {
        Broker::new(Policy::embedded("standard").unwrap())
    }

    #[test]
    fn a_denied_call_is_never_continued() {
        let broker = broker();
        for nr in 0..1024 {
            let call = call(nr);
            if !matches!(broker.policy.decide(&call), Class::Virtual) {
                assert!(matches!(broker.decide(&call).reply, Reply::Errno(errno) if errno > 0), "{nr}");
            }
        }
    }

    #[test]
    fn a_call_is_counted_once_it_was_answered_and_under_its_own_errno() {
        let mut broker = broker();
        let mount = broker.decide(&call(libc::SYS_mount));
        assert_eq!(broker.denied(), []);
        broker.count(mount.clone());
        broker.count(mount);
        let unknown = broker.decide(&call(4000));
        broker.count(unknown);
        let counted: Vec<_> =
            broker.denied().into_iter().map(|one| (one.syscall, one.errno.unwrap(), one.count)).collect();
        assert_eq!(counted, [("mount".into(), "EPERM".into(), 2), ("unknown".into(), "ENOSYS".into(), 1)]);
    }

    #[test]
    fn a_foreign_entry_is_refused_whatever_its_number() {
        let broker = broker();
        let foreign = Call { arch: 0x4000_0003, nr: 3, args: [0; 6] };
        assert_eq!(broker.decide(&foreign).reply, Reply::Errno(libc::ENOSYS));
    }
}
