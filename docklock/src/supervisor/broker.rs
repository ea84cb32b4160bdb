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
    denied: BTreeMap<(String, String), u64>,
    answered: BTreeMap<String, u64>,
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
    Denied { syscall: String, errno: String },
    Answered { syscall: String },
}

impl Broker {
    /// A broker that has seen nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, denied: BTreeMap::new(), answered: BTreeMap::new() }
    }

    /// What shall be answered to `call`.
    pub fn decide(&self, call: &Call) -> Decision {
        let syscall = self.policy.name_of(call).to_owned();
        match self.policy.decide(call) {
            Class::Deny(errno) => {
                Decision { reply: Reply::Errno(errno.number()), tally: Tally::Denied { syscall, errno: errno.name().to_owned() } }
            }
            // A call of class allow passes the filter unseen. One that arrives here disagrees with its own filter: fail closed.
            Class::Allow => {
                Decision { reply: Reply::Errno(libc::ENOSYS), tally: Tally::Denied { syscall, errno: "ENOSYS".to_owned() } }
            }
            Class::Notify => Decision { reply: Reply::Continue, tally: Tally::Answered { syscall } },
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
            .map(|((syscall, errno), count)| CallCount { syscall: syscall.clone(), errno: Some(errno.clone()), count: *count })
            .collect()
    }

    /// Answered calls, sorted by name.
    pub fn answered(&self) -> Vec<CallCount> {
        self.answered.iter().map(|(syscall, count)| CallCount { syscall: syscall.clone(), errno: None, count: *count }).collect()
    }
}
