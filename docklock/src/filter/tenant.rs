//! The filter a specification brings itself (`linux.seccomp`), stacked after ours.
//!
//! Stacked filters can only narrow, so whatever is in here opens nothing; but a narrower rule that is lost would be a promise broken to
//! the tenant, so a name that cannot be resolved is an error wherever skipping it would widen.
//! Absent on purpose: foreign architectures (our filter refuses them before) and a listener of the tenant's own (there is one).

use bpi_policies::syscalls;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::{FilterError, context, export, failed};

/// Most names in all rules together: the whole x86-64 table ten times over.
const NAMES_MAX: usize = 4_096;

/// Compiles the specification's own filter to BPF instructions, 8 bytes each.
///
/// # Errors
/// When it asks for a listener or tracer, names what cannot be resolved where that would widen it, or libseccomp refuses it.
pub fn compile_tenant(seccomp: &LinuxSeccomp) -> Result<Vec<u8>, FilterError> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    // Foreign entries pass here: our own filter, which is always in force beneath, refuses and counts them.
    let mut context = context(default, ScmpAction::Allow)?;
    let rules = seccomp.syscalls().iter().flatten();
    let names: usize = rules.clone().map(|rule| rule.names().len()).sum();
    if names > NAMES_MAX {
        return Err(refused("the number of names in syscalls", names.to_string(), "the limit is 4096"));
    }
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue;
        }
        let alternatives = alternatives(rule)?;
        for name in rule.names() {
            let Some(number) = number(name) else {
                // Unknown here and in libseccomp: a call of another architecture, or one newer than both.
                if action == ScmpAction::Allow {
                    continue;
                }
                return Err(refused(
                    "a rule's name",
                    name.clone(),
                    "it is no known system call, and skipping it would widen the filter",
                ));
            };
            for comparisons in &alternatives {
                context
                    .add_rule_conditional(action, ScmpSyscall::from_raw_syscall(number), comparisons)
                    .map_err(failed(format!("add the specification's rule for {name}")))?;
            }
        }
    }
    export(&context)
}

fn refused(what: &'static str, value: String, limit: &'static str) -> FilterError {
    FilterError::Tenant { what, value, limit }
}

/// A number in the x86-64 table; `None` for what is no call there.
fn number(name: &str) -> Option<i32> {
    match syscalls::named(name) {
        Some(row) => i32::try_from(row.nr).ok(),
        None => ScmpSyscall::from_name(name).ok().map(ScmpSyscall::as_raw_syscall).filter(|number| *number >= 0),
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, FilterError> {
    // runtime-spec, config-linux.md: EPERM when no errno is given.
    let errno = errno.map_or(Ok(nix::libc::EPERM), i32::try_from).ok().filter(|errno| (0..=4095).contains(errno));
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Ok(ScmpAction::KillThread),
        LinuxSeccompAction::ScmpActKillProcess => Ok(ScmpAction::KillProcess),
        LinuxSeccompAction::ScmpActTrap => Ok(ScmpAction::Trap),
        LinuxSeccompAction::ScmpActErrno => errno
            .map(ScmpAction::Errno)
            .ok_or_else(|| refused("errnoRet", format!("{action:?}"), "an errno is 0 to 4095")),
        LinuxSeccompAction::ScmpActLog => Ok(ScmpAction::Log),
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace => {
            Err(refused("an action", format!("{action:?}"), "the cage itself is the only listener and tracer"))
        }
    }
}

/// One rule's conditions as alternatives. All must hold; but several on one argument are alternatives, as runc reads them, because
/// libseccomp cannot say two things about one argument.
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<ScmpArgCompare>>, FilterError> {
    let args: Vec<&LinuxSeccompArg> = rule.args().iter().flatten().collect();
    let comparisons = args.iter().map(|arg| comparison(arg)).collect::<Result<Vec<_>, _>>()?;
    let repeated =
        args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|earlier| earlier.index() == arg.index()));
    Ok(if repeated { comparisons.into_iter().map(|comparison| vec![comparison]).collect() } else { vec![comparisons] })
}

fn comparison(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, FilterError> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| refused("an argument's index", arg.index().to_string(), "a call has arguments 0 to 5"))?;
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // The specification puts the mask into `value` and what must remain into `valueTwo`.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(index, operator, value))
}
