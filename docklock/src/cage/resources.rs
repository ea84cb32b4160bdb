//! Limits: the stricter of specification and policy wins.

use std::collections::BTreeMap;

use bpi_policies::profile::Profile;
use bpi_policies::{Budget, Limits};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Spec};

use super::PlanError;

/// Period of a CPU quota that the policy brings, in microseconds: the kernel's default.
const PERIOD_USEC: u64 = 100_000;

pub(super) fn of(spec: &mut Spec) -> Result<&mut LinuxResources, PlanError> {
    let linux = spec.linux_mut().as_mut().ok_or(PlanError::Missing { what: "linux" })?;
    Ok(linux.resources_mut().get_or_insert_with(LinuxResources::default))
}

/// Applies the policy's limits, also where the specification has none.
pub(super) fn narrow(resources: &mut LinuxResources, profile: &Profile) {
    let limits = &profile.limits;
    if limits.memory_bytes_max.is_some() {
        resources.memory_mut().get_or_insert_with(no_memory_limit);
    }
    if limits.pids_max.is_some() {
        resources.pids_mut().get_or_insert_with(no_pids_limit);
    }
    if limits.cpu_millis_max.is_some() {
        resources.cpu_mut().get_or_insert_with(LinuxCpu::default);
    }
    cap(resources, profile);
}

/// Applies the policy's limits to what the specification names.
pub(super) fn cap(resources: &mut LinuxResources, profile: &Profile) {
    let limits = &profile.limits;
    drop_raw(resources, limits);
    if let (Some(memory), Some(max)) = (resources.memory_mut(), signed(limits.memory_bytes_max)) {
        let limit = stricter(memory.limit(), max);
        memory.set_limit(Some(limit));
        // Memory and swap together: with more of it the limit would only move the pages.
        if let Some(swap) = memory.swap() {
            memory.set_swap(Some(stricter(Some(swap), limit)));
        }
        if let Some(reservation) = memory.reservation() {
            memory.set_reservation(Some(reservation.min(limit)));
        }
    }
    if let (Some(pids), Some(max)) = (resources.pids_mut(), signed(limits.pids_max)) {
        pids.set_limit(stricter(Some(pids.limit()), max));
    }
    if let (Some(cpu), Some(millis)) = (resources.cpu_mut(), signed(limits.cpu_millis_max)) {
        let period = cpu.period().filter(|period| *period > 0).unwrap_or(PERIOD_USEC);
        let max = i64::try_from(u128::from(period) * u128::from(millis.unsigned_abs()) / 1000).unwrap_or(i64::MAX);
        let quota = stricter(cpu.quota(), max);
        cpu.set_period(Some(period)).set_quota(Some(quota));
    }
}

/// The raw files of cgroup v2 that would undo a limit of the policy, by what the limit is.
fn drop_raw(resources: &mut LinuxResources, limits: &Limits) {
    let Some(files) = resources.unified_mut() else { return };
    files.retain(|file, _| match file.as_str() {
        "memory.max" | "memory.high" | "memory.swap.max" => limits.memory_bytes_max.is_none(),
        "pids.max" => limits.pids_max.is_none(),
        "cpu.max" => limits.cpu_millis_max.is_none(),
        _ => true,
    });
}

fn signed(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Zero and negative mean unlimited in a specification.
fn stricter(asked: Option<i64>, max: i64) -> i64 {
    asked.filter(|asked| *asked > 0).map_or(max, |asked| asked.min(max))
}

fn no_memory_limit() -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory.set_limit(None);
    memory
}

fn no_pids_limit() -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(0);
    pids
}

/// The budgets of a run as its receipt names them: the cgroup's, then the cage's own.
pub(super) fn limits(spec: &Spec, budget: &Budget) -> BTreeMap<String, u64> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref()).and_then(LinuxMemory::limit);
    let pids = resources.and_then(|resources| resources.pids().as_ref()).map(LinuxPids::limit);
    let of_host = [("memoryBytes", memory), ("pids", pids)];
    let of_host = of_host.map(|(name, limit)| (name, limit.and_then(|limit| u64::try_from(limit).ok())));
    let own = [
        ("calls", budget.calls_max),
        ("virtualSeconds", budget.virtual_seconds_max),
        ("tasks", budget.tasks_max),
        ("mappedBytes", budget.memory_bytes_max),
        ("fileBytes", budget.file_bytes_max),
    ];
    of_host
        .into_iter()
        .chain(own)
        .filter_map(|(name, limit)| Some((name.to_owned(), limit.filter(|limit| (1..1 << 53).contains(limit))?)))
        .collect()
}
