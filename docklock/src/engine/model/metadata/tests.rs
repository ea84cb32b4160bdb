#![allow(clippy::unwrap_used)]
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

const EPOCH_NS: u64 = 1_640_995_200_000_000_000;
const STARTED_NS: u64 = 1_790_000_000_000_000_000;
/// A date of the image and one after the start, in seconds.
const OLD: i64 = 1_700_000_000;
const FRESH: i64 = 1_790_000_100;

struct File {
    id: FileId,
    mode: u32,
    mtime: i64,
    ctime: i64,
}

const FILE: File = File { id: FileId { dev: 0x801, ino: 77 }, mode: 0o100_644, mtime: OLD, ctime: OLD };

impl File {
    fn stat(&self) -> [u8; STAT_BYTES] {
        let mut raw = [0xee; STAT_BYTES];
        put(&mut raw, stat::DEV, self.id.dev);
        put(&mut raw, stat::INO, self.id.ino);
        put(&mut raw, stat::NLINK, 3);
        put_u32(&mut raw, stat::MODE, self.mode);
        put(&mut raw, stat::RDEV, device(136, 300));
        put(&mut raw, stat::SIZE, 4097);
        put(&mut raw, stat::MTIME, self.mtime.cast_unsigned());
        put(&mut raw, stat::MTIME + 8, 5);
        put(&mut raw, stat::CTIME, self.ctime.cast_unsigned());
        put(&mut raw, stat::CTIME + 8, 6);
        raw
    }

    fn statx(&self, birth: i64) -> [u8; STATX_BYTES] {
        let mut raw = [0xee; STATX_BYTES];
        put_u32(&mut raw, statx::MASK, 0xfff);
        put(&mut raw, statx::INO, self.id.ino);
        put_u32(&mut raw, statx::DEV_MAJOR, 8);
        put_u32(&mut raw, statx::DEV_MINOR, 1);
        raw[statx::MODE..statx::MODE + 2].copy_from_slice(&u16::try_from(self.mode).unwrap().to_le_bytes());
        put(&mut raw, statx::SIZE, 4097);
        for (at, seconds) in [(statx::BTIME, birth), (statx::MTIME, self.mtime), (statx::CTIME, self.ctime)] {
            put(&mut raw, at, seconds.cast_unsigned());
            put(&mut raw, at + 8, 5);
        }
        raw
    }
}

fn metadata() -> Metadata {
    Metadata::new(STARTED_NS, EPOCH_NS)
}

/// (inode, mtime in seconds) as stat(2) shows them.
fn shown(metadata: &mut Metadata, file: &File) -> (u64, i64) {
    let mut raw = file.stat();
    metadata.rewrite_stat(&mut raw);
    (u64_at(&raw, stat::INO), i64_at(&raw, stat::MTIME))
}

#[test]
fn a_file_of_the_image_keeps_its_date() {
    let mut raw = FILE.stat();
    metadata().rewrite_stat(&mut raw);
    let fields: Vec<u64> = raw.chunks_exact(8).map(|field| u64_at(field, 0)).collect();
    let (mtime, ids) = (OLD.cast_unsigned(), u64_at(&FILE.stat(), 24));
    let expected = [DEVICE, 1000, 3, ids, 0xeeee_eeee, 0x8800, 4097, 4096, 16, mtime, 5, mtime, 5, mtime, 5, 0, 0, 0];
    assert_eq!(fields, expected);
}

#[test]
fn a_folder_has_one_link_and_one_block() {
    let mut raw = File { mode: 0o040_755, ..FILE }.stat();
    metadata().rewrite_stat(&mut raw);
    assert_eq!((u64_at(&raw, stat::NLINK), u64_at(&raw, stat::SIZE), u64_at(&raw, stat::BLOCKS)), (1, 4096, 8));
}

#[test]
fn what_changed_without_a_word_shows_the_epoch() {
    let touched = File { mtime: FRESH, ctime: FRESH, ..FILE };
    assert_eq!(shown(&mut metadata(), &touched).1, 1_640_995_200);
    let just_before = File { mtime: 1_789_999_999, ctime: 1_789_999_999, ..FILE };
    assert_eq!(shown(&mut metadata(), &just_before).1, 1_789_999_999);
}

#[test]
fn an_image_from_the_future_keeps_its_dates_until_it_is_touched() {
    let future = File { mtime: FRESH, ctime: OLD, ..FILE };
    assert_eq!(shown(&mut metadata(), &future).1, FRESH);
    let renamed = File { mtime: OLD, ctime: FRESH, ..FILE };
    assert_eq!(shown(&mut metadata(), &renamed).1, OLD);
}

#[test]
fn the_last_write_is_the_date() {
    let mut metadata = metadata();
    let file = File { mtime: FRESH, ctime: FRESH, ..FILE };
    metadata.created(file.id, 1_000_000_000);
    assert_eq!(shown(&mut metadata, &file), (1000, 1_640_995_201));
    metadata.written(file.id, 5_000_000_000);
    assert_eq!(shown(&mut metadata, &file), (1000, 1_640_995_205));
    metadata.set_times(file.id, None, Some(-1), 6_000_000_000);
    assert_eq!(shown(&mut metadata, &file), (1000, -1));
}

#[test]
fn an_access_time_is_shown_only_if_it_was_set() {
    let mut metadata = metadata();
    metadata.set_times(FILE.id, Some(9 * SECOND_NS + 1), None, 0);
    let mut raw = FILE.stat();
    metadata.rewrite_stat(&mut raw);
    assert_eq!((i64_at(&raw, stat::ATIME), i64_at(&raw, stat::ATIME + 8), i64_at(&raw, stat::MTIME)), (9, 1, OLD));
}

#[test]
fn an_inode_number_used_again_is_a_new_file() {
    let mut metadata = metadata();
    assert_eq!(metadata.vino(FILE.id), 1000);
    metadata.created(FILE.id, 0);
    assert_eq!(metadata.vino(FILE.id), 1001);
}

#[test]
fn inode_zero_is_none() {
    assert_eq!(metadata().vino(FileId { dev: 1, ino: 0 }), 0);
}

#[test]
fn pipes_and_the_kernels_files_show_the_epoch() {
    let mut metadata = metadata();
    assert_eq!(shown(&mut metadata, &File { mode: 0o010_600, ..FILE }).1, 1_640_995_200);
    metadata.kernel_device(0x17);
    assert_eq!(shown(&mut metadata, &File { id: FileId { dev: 0x17, ino: 4 }, ..FILE }).1, 1_640_995_200);
    let mut raw = plain_stat();
    metadata.rewrite_stat_of_proc(&mut raw, 7);
    assert_eq!(
        (u64_at(&raw, stat::INO), i64_at(&raw, stat::MTIME), u32_at(&raw, stat::MODE)),
        (7, 1_640_995_200, 0o100_444)
    );
    let mut raw = plain_statx();
    metadata.rewrite_statx_of_proc(&mut raw, 7);
    assert_eq!(
        (u64_at(&raw, statx::INO), i64_at(&raw, statx::BTIME), mode_of_statx(&raw)),
        (7, 1_640_995_200, 0o100_444)
    );
}

#[test]
fn a_change_that_is_no_write_has_a_date_of_its_own() {
    let mut metadata = metadata();
    let dates = |metadata: &mut Metadata| {
        let mut raw = File { ctime: FRESH, ..FILE }.statx(OLD);
        metadata.rewrite_statx(&mut raw);
        [statx::MTIME, statx::CTIME, statx::BTIME].map(|at| i64_at(&raw, at) - 1_640_995_200)
    };
    let image = OLD - 1_640_995_200;
    assert_eq!(dates(&mut metadata), [image, image, 0]);
    metadata.changed(FILE.id, 3_000_000_000);
    assert_eq!(dates(&mut metadata), [image, 3, 0]);
    metadata.created(FILE.id, 4_000_000_000);
    metadata.set_times(FILE.id, None, Some(0), 5_000_000_000);
    assert_eq!(dates(&mut metadata), [-1_640_995_200, 5, 4]);
    metadata.written(FILE.id, 6_000_000_000);
    assert_eq!(dates(&mut metadata), [6, 6, 4]);
}

#[test]
fn a_file_with_two_identities_is_one_file() {
    let mut metadata = metadata();
    metadata.set_times(FILE.id, None, Some(9 * SECOND_NS), 0);
    let ino = metadata.vino(FILE.id);
    let above = File { id: FileId { dev: 0x99, ino: 3 }, mtime: FRESH, ctime: FRESH, ..FILE };
    metadata.same(FILE.id, above.id);
    metadata.same(above.id, above.id);
    assert_eq!(shown(&mut metadata, &above), (ino, 9));
    metadata.written(above.id, 2_000_000_000);
    assert_eq!(shown(&mut metadata, &FILE), (ino, 1_640_995_202));
    metadata.created(above.id, 0);
    assert_ne!(metadata.vino(above.id), ino);
    assert_eq!(metadata.vino(FILE.id), ino);
}

#[test]
fn statx_says_what_stat_says() {
    let (mut metadata, mut raw) = (metadata(), FILE.statx(OLD));
    metadata.rewrite_statx(&mut raw);
    assert_eq!(shown(&mut metadata, &FILE), (u64_at(&raw, statx::INO), i64_at(&raw, statx::MTIME)));
    assert_eq!(u32_at(&raw, statx::MASK), 0x1fff);
    assert_eq!(
        (u32_at(&raw, statx::DEV_MAJOR), u32_at(&raw, statx::DEV_MINOR), u64_at(&raw, statx::MNT_ID)),
        (0, 1, 1)
    );
    assert_eq!((u64_at(&raw, statx::BLOCKS), u64_at(&raw, statx::ATTRIBUTES_MASK)), (16, STATX_ATTRIBUTES));
    for at in [statx::ATIME, statx::CTIME] {
        assert_eq!(raw[at..at + 16], raw[statx::MTIME..statx::MTIME + 16]);
    }
    assert!(raw[152..].iter().all(|byte| *byte == 0));
}

/// The offsets are right if a real file reads back through them.
#[test]
fn the_layout_is_the_kernels() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let real = std::fs::metadata(folder).unwrap();
    let native = nix::sys::stat::stat(folder).unwrap();
    assert_eq!(size_of_val(&native), STAT_BYTES);
    assert_eq!((native.st_ino, native.st_dev), (real.ino(), real.dev()));
    let base = std::ptr::from_ref(&native).addr();
    let offset = |field: usize| field - base;
    let of = |field: &u64| offset(std::ptr::from_ref(field).addr());
    let signed = |field: &i64| offset(std::ptr::from_ref(field).addr());
    assert_eq!((of(&native.st_dev), of(&native.st_ino), of(&native.st_nlink), of(&native.st_rdev)), (0, 8, 16, 40));
    assert_eq!(offset(std::ptr::from_ref(&native.st_mode).addr()), stat::MODE);
    assert_eq!((signed(&native.st_size), signed(&native.st_blksize), signed(&native.st_blocks)), (48, 56, 64));
    assert_eq!((signed(&native.st_atime), signed(&native.st_mtime), signed(&native.st_ctime)), (72, 88, 104));
}

#[test]
fn a_file_system_of_the_host_is_an_overlay_half_full() {
    let mut raw = [0xff; STATFS_BYTES];
    put(&mut raw, statfs::TYPE, 0xef53);
    put(&mut raw, statfs::FLAGS, 0x1000 | 0x20 | 0x1);
    metadata().rewrite_statfs(&mut raw);
    let fields: Vec<u64> = raw.chunks_exact(8).map(|field| u64_at(field, 0)).collect();
    assert_eq!(fields, [OVERLAY, 4096, 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 0, 255, 4096, 0x21, 0, 0, 0, 0]);
}

#[test]
fn proc_stays_empty() {
    let mut raw = [0; STATFS_BYTES];
    put(&mut raw, statfs::TYPE, 0x9fa0);
    metadata().rewrite_statfs(&mut raw);
    assert_eq!((u64_at(&raw, statfs::TYPE), u64_at(&raw, statfs::BLOCKS)), (0x9fa0, 0));
}

#[test]
fn dates_are_checked_as_the_kernel_does() {
    let pair = |values: [i64; 4]| {
        let mut raw = [0; 32];
        for (place, value) in raw.chunks_exact_mut(8).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        raw
    };
    assert_eq!(utimensat_times(None, 7), Ok((Some(7), Some(7))));
    assert_eq!(utimensat_times(Some(&pair([9, 0x3fff_fffe, 9, 0x3fff_ffff])), 7), Ok((None, Some(7))));
    assert_eq!(utimensat_times(Some(&pair([-1, 1, 2, 3])), 7), Ok((Some(-999_999_999), Some(2_000_000_003))));
    assert_eq!(utimensat_times(Some(&pair([0, 0, 0, 1_000_000_000])), 7), Err(Errno::EINVAL));
    assert_eq!(utimes_times(Some(&pair([1, 2, 3, 4])), 7), Ok((1_000_002_000, 3_000_004_000)));
    assert_eq!(utimes_times(Some(&pair([1, 1_000_000, 3, 4])), 7), Err(Errno::EINVAL));
    assert_eq!(utime_times(None, 7_900_000_000), (7 * SECOND_NS, 7 * SECOND_NS));
}

proptest! {
    #[test]
    fn no_raw_answer_panics(words in proptest::collection::vec(any::<u64>(), 32), now in any::<u64>()) {
        let mut raw = [0; STATX_BYTES];
        for (place, word) in raw.chunks_exact_mut(8).zip(&words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let (mut stat, mut statfs) = ([0; STAT_BYTES], [0; STATFS_BYTES]);
        stat.copy_from_slice(&raw[..STAT_BYTES]);
        statfs.copy_from_slice(&raw[..STATFS_BYTES]);
        let mut metadata = metadata();
        metadata.written(FileId::of_stat(&stat), now);
        metadata.rewrite_stat(&mut stat);
        metadata.rewrite_statx(&mut raw);
        metadata.rewrite_statfs(&mut statfs);
    }

    /// What differs between hosts (device, inode, dates of the run) is not seen; what is the guest's own order decides.
    #[test]
    fn two_hosts_show_the_same(
        touched in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..6_u64, 0..1_000_000_u64), 0..30),
        dev in 1..1000_u64,
        scramble in 1..1_000_u64,
        later in 0..1_000_000_i64,
    ) {
        let run = |dev: u64, scramble: u64, later: i64| {
            let mut metadata = Metadata::new(STARTED_NS + later.unsigned_abs() * 1_000_000_000, EPOCH_NS);
            let mut answers = Vec::new();
            for (creates, writes, file, now) in &touched {
                let id = FileId { dev, ino: (file + 1) * scramble };
                if *creates { metadata.created(id, *now) }
                if *writes { metadata.written(id, *now) }
                let seconds = FRESH + later;
                let mut raw = File { id, mtime: seconds, ctime: seconds, ..FILE }.stat();
                metadata.rewrite_stat(&mut raw);
                answers.push(raw.to_vec());
            }
            answers
        };
        prop_assert_eq!(run(dev, scramble, later), run(1, 1, 0));
    }
}
