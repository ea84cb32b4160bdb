#![allow(clippy::unwrap_used)]
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::{Abort, ChainLink, Host, Intent};
use bpi_protocol::run::CageRef;

use super::disk::HostDisk;
use super::model::{Fault, Loss, ModelDisk};
use super::*;
use crate::signer::FileKey;

const BOOT: &str = "11111111-1111-4111-8111-111111111111";
const NEXT_BOOT: &str = "22222222-2222-4222-8222-222222222222";
const HOST_ID: &str = "spiffe://bpi.local/host/test";

fn key() -> FileKey {
    let folder = tempfile::tempdir().unwrap();
    FileKey::generate(&folder.path().join("key")).unwrap()
}

fn host(signer: &dyn Signer) -> Host {
    crate::seal::host(HOST_ID, signer).unwrap()
}

/// An owner that has ended: nothing has process number 0.
fn gone(boot_id: &str) -> ProcessRef {
    ProcessRef { pid: 0, start_time: 1, boot_id: boot_id.to_owned() }
}

fn facts(container_id: &str, owner: ProcessRef) -> OpenFacts {
    OpenFacts {
        container_id: container_id.to_owned(),
        owner,
        state_dir: "/run/x".into(),
        cgroups: vec!["/sys/fs/cgroup/x".into()],
    }
}

fn intend(spool: &Spool, signer: &dyn Signer, id: &str, owner: ProcessRef) -> Result<Appended, SpoolError> {
    let host = host(signer);
    spool.intend(signer, facts(id, owner), |chain| {
        let cage = CageRef { profile: "standard".to_owned(), digest: Sha256Digest::EMPTY };
        let intent = Intent { container_id: id.to_owned(), cage, intended_on: clock::now(), host, chain };
        crate::seal::intent_statement(&intent, Sha256Digest::EMPTY)
    })
}

fn close(spool: &Spool, signer: &dyn Signer, intent: &Sha256Digest) -> Result<Appended, SpoolError> {
    let host = host(signer);
    spool.close(signer, intent, |chain| abort_statement("x", host, chain))
}

fn abort_statement(id: &str, host: Host, chain: ChainLink) -> Result<Vec<u8>, SealError> {
    let abort = Abort { container_id: id.to_owned(), reason: "test".to_owned(), aborted_on: clock::now(), host, chain };
    crate::seal::abort_statement(&abort)
}

fn on_model(disk: &ModelDisk, boot_id: &str) -> Spool {
    Spool::on(Box::new(disk.clone()), Path::new("/spool"), &Boundary::local(), boot_id.to_owned())
}

fn on_host(dir: &Path) -> Spool {
    Spool::open(dir, &Boundary::local()).unwrap()
}

/// The life of three containers, as far as the disk lets it come. Returns what was acknowledged.
fn three_lives(spool: &Spool, signer: &dyn Signer) -> (Vec<Appended>, Result<(), SpoolError>) {
    let done = RefCell::new(Vec::new());
    let acknowledge = |appended: Appended| {
        done.borrow_mut().push(appended.clone());
        appended.digest
    };
    let live = || {
        let a = acknowledge(intend(spool, signer, "a", gone(&spool.boot_id))?);
        spool.update(&a, |open| open.cgroups.push("/sys/fs/cgroup/y".into()))?;
        let b = acknowledge(intend(spool, signer, "b", gone(&spool.boot_id))?);
        acknowledge(close(spool, signer, &a)?);
        acknowledge(close(spool, signer, &b)?);
        acknowledge(intend(spool, signer, "c", gone(&spool.boot_id))?);
        Ok(())
    };
    let result = live();
    (done.into_inner(), result)
}

/// What has to hold after recovery, whatever happened before it.
fn assert_whole(spool: &Spool, disk: &ModelDisk, acknowledged: &[Appended], context: &str) {
    assert_eq!(spool.gaps().unwrap(), [], "{context}");
    for appended in acknowledged {
        assert_eq!(
            spool.record(appended.seq).unwrap().digest,
            appended.digest,
            "{context}: an acknowledged record changed"
        );
    }
    let mut closings: BTreeMap<Sha256Digest, u32> = BTreeMap::new();
    for seq in spool.seqs().unwrap() {
        let record = spool.record(seq).unwrap();
        match record.record {
            Record::Intent(_) => assert!(closings.insert(record.digest, 0).is_none(), "{context}"),
            Record::Receipt(_) | Record::Abort(_) => {
                *closings.get_mut(&record.link().started_ref.unwrap()).unwrap() += 1
            }
        }
    }
    assert!(closings.values().all(|count| *count == 1), "{context}: {closings:?}");
    let left: Vec<PathBuf> = disk.paths().into_iter().filter(|path| path.starts_with("/spool/local/open")).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "{context}");
}

fn recover(
    disk: &ModelDisk,
    boot_id: &str,
    signer: &dyn Signer,
    acknowledged: &[Appended],
    context: &str,
) -> Vec<String> {
    let spool = on_model(disk, boot_id);
    let killed = RefCell::new(Vec::new());
    let kill = |open: &OpenIntent| {
        killed.borrow_mut().push(open.container_id.clone());
        Ok(())
    };
    spool.close_orphans(signer, HOST_ID, &kill).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_whole(&spool, disk, acknowledged, context);
    let next = intend(&spool, signer, "next", gone(boot_id)).unwrap_or_else(|error| panic!("{context}: {error}"));
    close(&spool, signer, &next.digest).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_whole(&spool, disk, acknowledged, context);
    killed.into_inner()
}

/// Runs `check` with a fault at each step of three lives in turn, until they come to their end untouched.
fn at_each_step(fault: Fault, mut check: impl FnMut(u32, &ModelDisk, Vec<Appended>, Result<(), SpoolError>)) {
    let signer = key();
    for step in 0.. {
        let disk = ModelDisk::default();
        let spool = on_model(&disk, BOOT);
        spool.close_orphans(&signer, HOST_ID, &|_| Ok(())).unwrap();
        disk.fail_at(step, fault);
        let (acknowledged, result) = three_lives(&spool, &signer);
        let failed = disk.has_failed();
        check(step, &disk, acknowledged, result);
        if !failed {
            assert!(step > 30, "three lives take more steps than {step}");
            return;
        }
    }
}

#[test]
fn a_process_that_dies_at_any_step_leaves_a_chain_that_the_next_one_makes_whole() {
    let signer = key();
    at_each_step(Fault::Death, |step, disk, acknowledged, _| {
        let context = format!("death at step {step}");
        let killed = recover(&disk.restarted(Loss::Nothing), BOOT, &signer, &acknowledged, &context);
        // Whatever ran, because its intent was acknowledged and nothing closed it, was killed before its abort.
        let unclosed = match acknowledged.len() {
            1 => Some("a"),
            2 => Some("b"),
            5 => Some("c"),
            _ => None,
        };
        if let Some(id) = unclosed {
            assert!(killed.iter().any(|killed| killed == id), "{context}: {killed:?}");
        }
    });
}

#[test]
fn a_loss_of_power_at_any_step_leaves_a_chain_that_the_next_boot_makes_whole() {
    let signer = key();
    at_each_step(Fault::Death, |step, disk, acknowledged, _| {
        for loss in
            [Loss::Everything].into_iter().chain((0..12).map(|seed| Loss::Some(seed * 1_000_003 + u64::from(step))))
        {
            let context = format!("power lost at step {step}, {loss:?}");
            let killed = recover(&disk.restarted(loss), NEXT_BOOT, &signer, &acknowledged, &context);
            assert!(killed.is_empty(), "{context}: what a boot took with it is not there to be killed: {killed:?}");
        }
    });
}

#[test]
fn a_failed_step_is_an_error_or_harmless_and_the_chain_stays_whole() {
    let signer = key();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied] {
        at_each_step(Fault::Error(kind), |step, disk, acknowledged, result| {
            let context = format!("{kind:?} at step {step}");
            if let Err(error) = result {
                let expected = if kind == io::ErrorKind::StorageFull { "DL0303" } else { "DL0304" };
                assert_eq!(error.code(), expected, "{context}: {error}");
            }
            recover(&disk.restarted(Loss::Nothing), BOOT, &signer, &acknowledged, &context);
        });
    }
}

#[test]
fn recovery_that_is_itself_cut_short_can_be_done_again() {
    let signer = key();
    for (boot, loss) in [(BOOT, Loss::Nothing), (NEXT_BOOT, Loss::Everything)] {
        for step in 0.. {
            let disk = ModelDisk::default();
            let spool = on_model(&disk, BOOT);
            spool.close_orphans(&signer, HOST_ID, &|_| Ok(())).unwrap();
            let a = intend(&spool, &signer, "a", gone(BOOT)).unwrap();
            let b = intend(&spool, &signer, "b", gone(BOOT)).unwrap();
            let disk = disk.restarted(loss);
            disk.fail_at(step, Fault::Death);
            let first = on_model(&disk, boot).close_orphans(&signer, HOST_ID, &|_| Ok(()));
            let failed = disk.has_failed();
            assert!(failed || first.is_ok());
            recover(
                &disk.restarted(Loss::Nothing),
                boot,
                &signer,
                &[a, b],
                &format!("recovery cut at step {step} in {boot}"),
            );
            if !failed {
                break;
            }
        }
    }
}

#[test]
fn a_closing_that_failed_can_be_tried_again_and_closes_once() {
    let signer = key();
    for step in 0.. {
        let disk = ModelDisk::default();
        let spool = on_model(&disk, BOOT);
        let a = intend(&spool, &signer, "a", gone(BOOT)).unwrap();
        disk.fail_at(step, Fault::Error(io::ErrorKind::StorageFull));
        let first = close(&spool, &signer, &a.digest);
        let failed = disk.has_failed();
        let second = close(&spool, &signer, &a.digest);
        match first {
            Ok(_) => assert_eq!(second.unwrap_err().code(), "DL0311"),
            Err(_) => assert_eq!(second.unwrap().seq, 1, "step {step}"),
        }
        assert_whole(&spool, &disk, &[a], &format!("step {step}"));
        if !failed {
            return;
        }
    }
}

#[test]
fn an_intent_that_did_not_get_its_record_leaves_no_entry() {
    let signer = key();
    let disk = ModelDisk::default();
    let spool = on_model(&disk, BOOT);
    // Steps 0 and 1 are the entry, 2 and 3 the record's bytes.
    disk.fail_at(3, Fault::Error(io::ErrorKind::StorageFull));
    assert_eq!(intend(&spool, &signer, "a", gone(BOOT)).unwrap_err().code(), "DL0303");
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
}

#[test]
fn a_container_whose_kill_fails_stays_open_and_does_not_hold_up_the_others() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    for id in ["stuck", "loose"] {
        intend(&spool, &signer, id, gone(&spool.boot_id)).unwrap();
    }
    let kill =
        |open: &OpenIntent| if open.container_id == "stuck" { Err("it will not die".to_owned()) } else { Ok(()) };
    let error = spool.close_orphans(&signer, HOST_ID, &kill).unwrap_err();
    assert_eq!(error.code(), "DL0314");
    assert!(error.to_string().contains("stuck") && error.to_string().contains("it will not die"), "{error}");
    let open: Vec<String> = spool.open_intents().unwrap().into_iter().map(|open| open.container_id).collect();
    assert_eq!(open, ["stuck"]);
    assert_eq!(spool.close_orphans(&signer, HOST_ID, &|_| Ok(())).unwrap().len(), 1);
}

#[test]
fn a_living_owner_keeps_its_intent() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    let me = ProcessRef::of(std::process::id()).unwrap();
    let intent = intend(&spool, &signer, "mine", me).unwrap();
    let closed = spool.close_orphans(&signer, HOST_ID, &|_| panic!("nobody is to be killed")).unwrap();
    assert_eq!(closed, []);
    let pid = std::process::id();
    assert_eq!(spool.gaps().unwrap(), [Gap::Running { seq: 0, container_id: "mine".to_owned(), pid }]);
    close(&spool, &signer, &intent.digest).unwrap();
    assert_eq!(close(&spool, &signer, &intent.digest).unwrap_err().code(), "DL0311");
}

#[test]
fn a_head_that_is_stale_missing_or_garbage_costs_only_a_search() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    let head = folder.path().join("local/head.json");
    let mut seq = 0;
    let mut append = |spool: &Spool| {
        let appended = intend(spool, &signer, "x", gone(BOOT)).unwrap();
        assert_eq!(appended.seq, seq);
        seq += 1;
    };
    append(&spool);
    let stale = std::fs::read(&head).unwrap();
    append(&spool);
    append(&spool);
    std::fs::write(&head, &stale).unwrap();
    append(&spool);
    std::fs::remove_file(&head).unwrap();
    append(&on_host(folder.path()));
    for garbage in [&b""[..], b"{", b"{\"seq\":0}", b"{\"seq\":99,\"prev\":7}", &[0; 5000]] {
        std::fs::write(&head, garbage).unwrap();
        append(&on_host(folder.path()));
    }
    let wrong_prev = format!("{{\"seq\":{},\"prev\":{{\"sha256\":\"{}\"}}}}", 9, Sha256Digest::EMPTY);
    std::fs::write(&head, wrong_prev).unwrap();
    append(&on_host(folder.path()));
    let faults: Vec<Gap> = spool
        .gaps()
        .unwrap()
        .into_iter()
        .filter(|gap| matches!(gap, Gap::Missing { .. } | Gap::Broken { .. }))
        .collect();
    assert_eq!(faults, []);
}

#[test]
fn a_tail_that_was_cut_off_is_named_and_its_number_is_not_used_again() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    for _ in 0..3 {
        intend(&spool, &signer, "x", gone(BOOT)).unwrap();
    }
    std::fs::remove_file(spool.record_path(2)).unwrap();
    let error = intend(&on_host(folder.path()), &signer, "x", gone(BOOT)).unwrap_err();
    assert!(matches!(&error, SpoolError::Missing { path, .. } if path.ends_with("000000000002.json")), "{error}");
    std::fs::remove_file(spool.record_path(1)).unwrap();
    std::fs::write(spool.record_path(2), b"x").unwrap();
    std::fs::remove_file(folder.path().join("local/head.json")).unwrap();
    let error = intend(&on_host(folder.path()), &signer, "x", gone(BOOT)).unwrap_err();
    assert!(matches!(&error, SpoolError::Missing { path, .. } if path.ends_with("000000000001.json")), "{error}");
}

#[test]
fn a_last_record_that_was_torn_changed_or_swapped_is_named_and_nothing_is_appended() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    for id in ["a", "b", "c"] {
        intend(&spool, &signer, id, gone(BOOT)).unwrap();
    }
    let path = spool.record_path(2);
    let whole = std::fs::read(&path).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let signature = text.find("\"sig\":\"").unwrap() + 8;
    let mut forged = whole.clone();
    forged[signature] = if forged[signature] == b'A' { b'B' } else { b'A' };
    let other_place = std::fs::read(spool.record_path(1)).unwrap();
    let other_chain = {
        let folder = tempfile::tempdir().unwrap();
        let spool = on_host(folder.path());
        for id in ["p", "q", "r"] {
            intend(&spool, &signer, id, gone(BOOT)).unwrap();
        }
        std::fs::read(spool.record_path(2)).unwrap()
    };
    let torn = &whole[..whole.len() / 2];
    for (bytes, code) in
        [(torn, "DL0305"), (b"", "DL0305"), (&forged, "DL0306"), (&other_place, "DL0305"), (&other_chain, "DL0307")]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = intend(&on_host(folder.path()), &signer, "d", gone(BOOT)).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("000000000002.json"), "{error}");
        assert!(!spool.record_path(3).exists());
    }
    std::fs::write(&path, &whole).unwrap();
    intend(&on_host(folder.path()), &signer, "d", gone(BOOT)).unwrap();
}

#[test]
fn gaps_names_holes_damage_and_open_intents() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    for id in ["a", "b", "c", "d", "e"] {
        intend(&spool, &signer, id, gone(BOOT)).unwrap();
    }
    std::fs::remove_file(spool.record_path(1)).unwrap();
    std::fs::write(spool.record_path(3), b"{}").unwrap();
    let gaps = spool.gaps().unwrap();
    assert!(
        matches!(
            gaps.as_slice(),
            [
                Gap::Orphaned { seq: 0, .. },
                Gap::Missing { seq: 1 },
                Gap::Orphaned { seq: 2, .. },
                Gap::Broken { seq: 3, .. },
                Gap::Orphaned { seq: 4, .. }
            ]
        ),
        "{gaps:?}"
    );
}

#[test]
fn a_record_built_for_another_place_is_refused() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    let spool = on_host(folder.path());
    let intent = intend(&spool, &signer, "a", gone(BOOT)).unwrap();
    let error = spool
        .close(&signer, &intent.digest, |link| {
            abort_statement("a", host(&signer), ChainLink { started_ref: Some(Sha256Digest::EMPTY), ..link })
        })
        .unwrap_err();
    assert_eq!(error.code(), "DL0310");
    assert!(!spool.record_path(1).exists());
}

#[test]
fn a_key_that_was_replaced_goes_on_with_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    intend(&on_host(folder.path()), &key(), "a", gone(BOOT)).unwrap();
    assert_eq!(intend(&on_host(folder.path()), &key(), "b", gone(BOOT)).unwrap().seq, 1);
}

#[test]
fn records_are_found_by_container_id_and_boundaries_by_folder() {
    let signer = key();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(boundaries(folder.path()).unwrap(), []);
    let spool = on_host(folder.path());
    let a = intend(&spool, &signer, "x", gone(BOOT)).unwrap();
    intend(&spool, &signer, "y", gone(BOOT)).unwrap();
    close(&spool, &signer, &a.digest).unwrap();
    let found: Vec<u64> = spool.records_of("x").unwrap().iter().map(|record| record.seq).collect();
    assert_eq!(found, [0, 2]);
    std::fs::create_dir(folder.path().join("not a boundary")).unwrap();
    assert_eq!(boundaries(folder.path()).unwrap(), [Boundary::local()]);
    let none = Spool::open_existing(folder.path(), &Boundary::new("none").unwrap()).unwrap_err();
    assert_eq!(none.code(), "DL0302");
}

#[test]
fn a_spool_that_cannot_be_made_or_written_is_an_error_that_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Spool::open(&file, &Boundary::local()).unwrap_err();
    assert!(error.code() == "DL0304" && error.to_string().contains("file/local/records"), "{error}");
    let spool = on_host(folder.path());
    std::fs::remove_dir(spool.records_folder()).unwrap();
    let error = intend(&spool, &key(), "a", gone(BOOT)).unwrap_err();
    assert!(error.code() == "DL0304" && error.to_string().contains("records"), "{error}");
    assert_eq!(spool.open_intents().unwrap(), []);
}

#[test]
fn on_a_full_disk_the_intent_fails_and_leaves_nothing_half_made() {
    use nix::mount::{MsFlags, mount};
    let folder = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    // This thread alone gets a mount namespace; it goes with the thread.
    let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")));
    if let Err(errno) = mounted {
        eprintln!("skipped: this user cannot mount a small tmpfs ({errno})");
        return;
    }
    let signer = key();
    let spool = on_host(folder.path());
    let mut written = 0;
    let error = loop {
        match intend(&spool, &signer, "a", gone(BOOT)) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "64 KiB do not hold a hundred records");
    };
    assert_eq!(error.code(), "DL0303", "{error}");
    assert_eq!(spool.seqs().unwrap().len(), written);
    assert_eq!(spool.open_intents().unwrap().len(), written);
    let names = HostDisk.names(&spool.records_folder()).unwrap();
    assert!(names.iter().all(|name| name.ends_with(".json")), "{names:?}");
    // With room again the chain goes on where it stood.
    mount(none, folder.path(), none, MsFlags::MS_REMOUNT, Some("size=1m")).unwrap();
    assert_eq!(intend(&spool, &signer, "b", gone(BOOT)).unwrap().seq, written as u64);
}

/// Names the folder in which `a_writer_beside_others` shall work.
const WRITER_DIR: &str = "DOCKLOCK_TEST_SPOOL";
const WRITERS: usize = 4;
const LIVES: usize = 25;

#[test]
fn a_writer_beside_others() {
    let Some(dir) = std::env::var_os(WRITER_DIR).map(PathBuf::from) else { return };
    let signer = FileKey::load(&dir.join("key")).unwrap();
    let spool = on_host(&dir);
    let me = ProcessRef::of(std::process::id()).unwrap();
    for _ in 0..LIVES {
        let intent = intend(&spool, &signer, "x", me.clone()).unwrap();
        spool.update(&intent.digest, |open| open.init = Some(me.clone())).unwrap();
        close(&spool, &signer, &intent.digest).unwrap();
    }
    intend(&spool, &signer, "left-open", me).unwrap();
}

#[test]
fn processes_that_append_and_recover_at_once_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    FileKey::generate(&folder.path().join("key")).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "spool::tests::a_writer_beside_others"])
                .env(WRITER_DIR, folder.path())
                .spawn()
                .unwrap()
        })
        .collect();
    let signer = FileKey::load(&folder.path().join("key")).unwrap();
    let spool = on_host(folder.path());
    for mut writer in writers {
        spool.close_orphans(&signer, HOST_ID, &|_| Ok(())).unwrap();
        assert!(writer.wait().unwrap().success());
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| spool.close_orphans(&signer, HOST_ID, &|_| Ok(())).unwrap().len())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().sum::<usize>() <= WRITERS);
    assert_eq!(spool.gaps().unwrap(), []);
    assert_eq!(spool.seqs().unwrap().len(), WRITERS * (LIVES + 1) * 2);
}
