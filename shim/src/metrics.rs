//! A container's counters in the message that containerd's metrics plugin reads: cgroup v1's or v2's, as the host is.
//!
//! Pure. A counter that the host does not keep is zero, as in containerd's own shim; a limit that is none is the largest number there is.

use cgroups_rs::stats::{BlkioStat as Io, CgroupStats, MemoryCgroupStats, MemoryStats};
use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use docklock::cgroup::Stats;

use crate::wire::any;

/// Nanoseconds of one tick of cpuacct.stat: USER_HZ is 100 on every Linux architecture containerd runs on.
const TICK_NS: u64 = 10_000_000;

/// Packs `stats` as containerd wants them.
pub fn pack(stats: &Stats) -> Any {
    if stats.v2 { any(&unified(stats)) } else { any(&legacy(stats)) }
}

fn some<T>(message: T) -> MessageField<T> {
    MessageField::some(message)
}

/// Kernel files say "max" or a huge number for no limit; cgroups-rs reads "max" as -1.
fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn legacy(stats: &Stats) -> v1::Metrics {
    let CgroupStats { cpu, memory, pids, blkio, hugetlb } = &stats.counters;
    let account = cpu.cpu_acct.as_ref();
    let throttled = cpu.cpu_throttling.as_ref();
    v1::Metrics {
        pids: some(v1::PidsStat {
            current: pids.current,
            limit: u64::try_from(pids.limit).unwrap_or(0),
            ..Default::default()
        }),
        cpu: some(v1::CPUStat {
            usage: some(v1::CPUUsage {
                total: account.map_or(0, |a| a.total_usage),
                kernel: account.map_or(0, |a| a.system_usage.saturating_mul(TICK_NS)),
                user: account.map_or(0, |a| a.user_usage.saturating_mul(TICK_NS)),
                per_cpu: account.map(|a| a.usage_percpu.clone()).unwrap_or_default(),
                ..Default::default()
            }),
            throttling: some(v1::Throttle {
                periods: throttled.map_or(0, |t| t.periods),
                throttled_periods: throttled.map_or(0, |t| t.throttled_periods),
                throttled_time: throttled.map_or(0, |t| t.throttled_time),
                ..Default::default()
            }),
            ..Default::default()
        }),
        memory: some(legacy_memory(memory)),
        blkio: some(v1::BlkIOStat {
            io_service_bytes_recursive: blkio.io_service_bytes_recursive.iter().map(legacy_io).collect(),
            io_serviced_recursive: blkio.io_serviced_recursive.iter().map(legacy_io).collect(),
            io_queued_recursive: blkio.io_queued_recursive.iter().map(legacy_io).collect(),
            io_service_time_recursive: blkio.io_service_time_recursive.iter().map(legacy_io).collect(),
            io_wait_time_recursive: blkio.io_wait_time_recursive.iter().map(legacy_io).collect(),
            io_merged_recursive: blkio.io_merged_recursive.iter().map(legacy_io).collect(),
            io_time_recursive: blkio.io_time_recursive.iter().map(legacy_io).collect(),
            sectors_recursive: blkio.sectors_recursive.iter().map(legacy_io).collect(),
            ..Default::default()
        }),
        hugetlb: hugetlb
            .iter()
            .map(|(size, page)| v1::HugetlbStat {
                usage: page.usage,
                max: page.max_usage,
                failcnt: page.fail_cnt,
                pagesize: size.clone(),
                ..Default::default()
            })
            .collect(),
        memory_oom_control: some(v1::MemoryOomControl { oom_kill: stats.oom_kills, ..Default::default() }),
        ..Default::default()
    }
}

fn legacy_memory(memory: &MemoryCgroupStats) -> v1::MemoryStat {
    let entry = |part: &Option<MemoryStats>| {
        part.as_ref().map_or_else(MessageField::none, |part| {
            some(v1::MemoryEntry {
                limit: limit(part.limit),
                usage: part.usage,
                max: part.max_usage,
                failcnt: part.fail_cnt,
                ..Default::default()
            })
        })
    };
    v1::MemoryStat {
        cache: memory.cache,
        rss: memory.rss,
        rss_huge: memory.rss_huge,
        mapped_file: memory.mapped_file,
        dirty: memory.dirty,
        writeback: memory.writeback,
        pg_pg_in: memory.pgpgin,
        pg_pg_out: memory.pgpgout,
        pg_fault: memory.pgfault,
        pg_maj_fault: memory.pgmajfault,
        inactive_anon: memory.inactive_anon,
        active_anon: memory.active_anon,
        inactive_file: memory.inactive_file,
        active_file: memory.active_file,
        unevictable: memory.unevictable,
        hierarchical_memory_limit: limit(memory.hierarchical_memory_limit),
        hierarchical_swap_limit: limit(memory.hierarchical_memsw_limit),
        total_cache: memory.total_cache,
        total_rss: memory.total_rss,
        total_rss_huge: memory.total_rss_huge,
        total_mapped_file: memory.total_mapped_file,
        total_dirty: memory.total_dirty,
        total_writeback: memory.total_writeback,
        total_pg_pg_in: memory.total_pgpgin,
        total_pg_pg_out: memory.total_pgpgout,
        total_pg_fault: memory.total_pgfault,
        total_pg_maj_fault: memory.total_pgmajfault,
        total_inactive_anon: memory.total_inactive_anon,
        total_active_anon: memory.total_active_anon,
        total_inactive_file: memory.total_inactive_file,
        total_active_file: memory.total_active_file,
        total_unevictable: memory.total_unevictable,
        usage: entry(&memory.memory),
        swap: entry(&memory.memory_swap),
        kernel: entry(&memory.kernel_memory),
        ..Default::default()
    }
}

fn legacy_io(entry: &Io) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

fn unified(stats: &Stats) -> v2::Metrics {
    let CgroupStats { cpu, memory, pids, blkio, hugetlb } = &stats.counters;
    let throttled = cpu.cpu_throttling.as_ref();
    let main = memory.memory.as_ref();
    let swap = memory.memory_swap.as_ref();
    v2::Metrics {
        pids: some(v2::PidsStat {
            current: pids.current,
            limit: u64::try_from(pids.limit).unwrap_or(0),
            ..Default::default()
        }),
        cpu: some(v2::CPUStat {
            usage_usec: stats.cpu_usec.unwrap_or(0),
            nr_periods: throttled.map_or(0, |t| t.periods),
            nr_throttled: throttled.map_or(0, |t| t.throttled_periods),
            throttled_usec: throttled.map_or(0, |t| t.throttled_time),
            ..Default::default()
        }),
        memory: some(v2::MemoryStat {
            shmem: memory.shmem,
            inactive_anon: memory.inactive_anon,
            active_anon: memory.active_anon,
            inactive_file: memory.inactive_file,
            active_file: memory.active_file,
            unevictable: memory.unevictable,
            pgfault: memory.pgfault,
            pgmajfault: memory.pgmajfault,
            usage: main.map_or(0, |m| m.usage),
            usage_limit: main.map_or(u64::MAX, |m| limit(m.limit)),
            max_usage: stats.memory_peak_bytes.unwrap_or(0),
            swap_usage: swap.map_or(0, |m| m.usage),
            swap_limit: swap.map_or(u64::MAX, |m| limit(m.limit)),
            swap_max_usage: swap.map_or(0, |m| m.max_usage),
            ..Default::default()
        }),
        memory_events: some(v2::MemoryEvents { oom_kill: stats.oom_kills, ..Default::default() }),
        io: some(v2::IOStat { usage: unified_io(&blkio.io_service_bytes_recursive), ..Default::default() }),
        hugetlb: hugetlb
            .iter()
            .map(|(size, page)| v2::HugeTlbStat {
                current: page.usage,
                max: page.max_usage,
                pagesize: size.clone(),
                failcnt: page.fail_cnt,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// io.stat's counters come one by one; the message wants one entry for each device.
fn unified_io(entries: &[Io]) -> Vec<v2::IOEntry> {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    for entry in entries {
        let at = devices
            .iter()
            .position(|device| (device.major, device.minor) == (entry.major, entry.minor))
            .unwrap_or_else(|| {
                devices.push(v2::IOEntry { major: entry.major, minor: entry.minor, ..Default::default() });
                devices.len() - 1
            });
        match entry.op.to_ascii_lowercase().as_str() {
            "read" | "rbytes" => devices[at].rbytes = entry.value,
            "write" | "wbytes" => devices[at].wbytes = entry.value,
            "rios" => devices[at].rios = entry.value,
            "wios" => devices[at].wios = entry.value,
            _ => {}
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use containerd_shim_protos::protobuf::Message;

    fn stats(v2: bool) -> Stats {
        let mut stats =
            Stats { v2, cpu_usec: Some(1_500), memory_peak_bytes: Some(9), oom_kills: 2, ..Stats::default() };
        stats.counters.pids.current = 3;
        stats.counters.cpu.cpu_acct = Some(cgroups_rs::stats::CpuAcctStats {
            total_usage: 1_500_000,
            user_usage: 2,
            system_usage: 1,
            usage_percpu: vec![],
        });
        stats.counters.memory.memory = Some(MemoryStats { usage: 7, max_usage: 9, limit: -1, fail_cnt: 0 });
        stats.counters.blkio.io_service_bytes_recursive = vec![
            Io { major: 8, minor: 0, op: "read".into(), value: 5 },
            Io { major: 8, minor: 0, op: "write".into(), value: 6 },
        ];
        stats
    }

    #[test]
    fn a_v1_host_answers_in_the_v1_message_with_nanoseconds() {
        let packed = pack(&stats(false));
        assert_eq!(packed.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&packed.value).unwrap();
        assert_eq!(metrics.cpu.usage.total, 1_500_000);
        assert_eq!((metrics.cpu.usage.user, metrics.cpu.usage.kernel), (20_000_000, 10_000_000));
        assert_eq!((metrics.memory.usage.usage, metrics.memory.usage.limit), (7, u64::MAX));
        assert_eq!(metrics.memory_oom_control.oom_kill, 2);
    }

    #[test]
    fn a_v2_host_answers_in_the_v2_message_with_one_entry_a_device() {
        let packed = pack(&stats(true));
        assert_eq!(packed.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&packed.value).unwrap();
        assert_eq!((metrics.cpu.usage_usec, metrics.pids.current), (1_500, 3));
        assert_eq!((metrics.memory.usage, metrics.memory.max_usage, metrics.memory.usage_limit), (7, 9, u64::MAX));
        assert_eq!(metrics.io.usage.len(), 1);
        assert_eq!((metrics.io.usage[0].rbytes, metrics.io.usage[0].wbytes), (5, 6));
        assert_eq!(metrics.memory_events.oom_kill, 2);
    }
}
