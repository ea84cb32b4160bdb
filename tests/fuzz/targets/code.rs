//! Any bytes as code: looking through them ends, patching is only where an instruction can be read, what was patched reads back, and
//! is found no second time.

#![no_main]

use docklock::engine::model::instructions::{TRAP, read, scan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|code: &[u8]| {
    let first = scan(code);
    let mut patched = code.to_vec();
    for (at, found) in &first.sites {
        let start = at - found.prefixes;
        assert_eq!(read(&code[start..], code[*at]), Some(*found));
        patched[*at] = TRAP;
        assert_eq!(read(&patched[start..], TRAP), Some(*found));
    }
    let again = scan(&patched);
    assert!(again.sites.iter().all(|(at, _)| first.sites.iter().all(|(known, _)| at != known)));
});
