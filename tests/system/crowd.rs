//! Many at once: each container gets its own output, its own code and its own receipt.

use std::thread;
use std::time::Duration;

use bpi_tests::command::run;
use bpi_tests::daemon::Version;
use bpi_tests::records::{all_closed, read};
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure};
use sha2::{Digest, Sha256};

pub const TESTS: &[(&str, crate::Test)] = &[("fifty_containers_at_once_each_have_their_right_receipt", fifty)];

const CROWD: usize = 50;

fn fifty(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("crowd")?;
    let one = |number: usize| -> Result<(), Failure> {
        let id = format!("one-of-many-{number}");
        let script = format!("echo {id}; sleep 0.5; exit {number}");
        let command = namespace.run_command(&id, &[], &["sh", "-c", &script]);
        let code = i32::try_from(number).expect("fifty fits i32");
        let finished = run(command, b"", Duration::from_secs(120))?.expect_code(code)?;
        ensure(finished.text() == id, format!("{id} printed {:?}", finished.text()))?;
        let receipt = namespace.receipt(&id)?;
        let digest = hex::encode(Sha256::digest(format!("{id}\n")));
        ensure(receipt.result_digest("stdout") == digest, format!("the receipt of {id} has the output of another"))
    };
    thread::scope(|scope| {
        let one = &one;
        let workers: Vec<_> = (0..CROWD).map(|number| scope.spawn(move || one(number))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Failure::from("a worker panicked"))?)
    })?;
    all_closed(&daemon.spool, &namespace.name, Duration::from_secs(5))?;
    let records = read(&daemon.spool, &namespace.name)?.len();
    ensure(records == 2 * CROWD, format!("{CROWD} runs gave {records} records"))?;
    namespace.leaves_nothing()?;
    done()
}
