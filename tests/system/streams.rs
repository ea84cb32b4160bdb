//! stdin, stdout, stderr and terminals: every byte arrives, and the receipt has its digest.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use bpi_tests::command::{DEADLINE, run, wait};
use bpi_tests::daemon::Version;
use bpi_tests::terminal::Terminal;
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure, eventually};
use sha2::{Digest, Sha256};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("stdin_through_a_pipe_arrives_whole_and_ends", stdin_pipe),
    ("stdout_and_stderr_stay_apart", two_streams),
    ("a_hundred_megabytes_of_output_arrive_whole", hundred_megabytes),
    ("a_killed_container_whose_reader_has_gone_is_sealed_and_its_receipt_says_so", reader_leaves),
    ("a_terminal_has_its_size_and_its_exit_code", terminal),
    ("null_io_discards_output_and_hashes_it_all_the_same", null_io),
];

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn stdin_pipe(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("stdin")?;
    let mut state = 1_u32;
    let input: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(3 << 20)
    .collect();
    let finished = run(namespace.run_command("cat", &[], &["cat"]), &input, DEADLINE)?.ok()?;
    ensure(
        finished.stdout == input,
        format!("{} of {} bytes came back, or others", finished.stdout.len(), input.len()),
    )?;
    let receipt = namespace.receipt("cat")?;
    ensure(receipt.result_digest("stdout") == sha256(&input), "the receipt has another digest of stdout")?;
    namespace.leaves_nothing()?;
    done()
}

fn two_streams(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("two")?;
    let finished = namespace.run("two", &[], &["sh", "-c", "echo out; echo err >&2; echo out"])?.ok()?;
    ensure(finished.stdout == b"out\nout\n", format!("stdout was {:?}", finished.text()))?;
    ensure(finished.stderr == b"err\n", format!("stderr was {:?}", finished.error_text()))?;
    let receipt = namespace.receipt("two")?;
    ensure(receipt.result_digest("stdout") == sha256(b"out\nout\n"), "the receipt has another digest of stdout")?;
    ensure(receipt.result_digest("stderr") == sha256(b"err\n"), "the receipt has another digest of stderr")?;
    done()
}

fn hundred_megabytes(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("big")?;
    let finished = namespace.run("big", &[], &["dd", "if=/dev/zero", "bs=1M", "count=100", "status=none"])?.ok()?;
    ensure(finished.stdout.len() == 100 << 20, format!("{} bytes arrived", finished.stdout.len()))?;
    let receipt = namespace.receipt("big")?;
    ensure(receipt.result_digest("stdout") == sha256(&finished.stdout), "the receipt has another digest of stdout")?;
    done()
}

fn reader_leaves(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("reader")?;
    let mut command = namespace.run_command("reader", &[], &["yes"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot start ctr: {error}"))?;
    let mut first = [0; 1];
    let stdout = child.stdout.as_mut().ok_or("ctr has no stdout")?;
    stdout.read_exact(&mut first).map_err(|error| format!("the container printed nothing: {error}"))?;
    child.kill().map_err(|error| format!("cannot kill ctr: {error}"))?;
    wait(&mut child, "ctr run", Duration::from_secs(30))?;
    // It has filled every pipe on the way, and stands still, when its count of written bytes has stopped to grow.
    let pid = namespace.pid("reader")?;
    let (mut last, mut same) = (String::new(), 0);
    eventually("the container waits for a reader", Duration::from_secs(20), || {
        let now = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 10).then_some(())
    })?;
    // Nobody reads any more: the container waits for room in the pipe, as it does under runc, and so outlives a restart of its client.
    namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "reader"])?.ok()?;
    bpi_tests::records::all_closed(&namespace.daemon.spool, &namespace.name, Duration::from_secs(20))?;
    namespace.reaches("reader", "STOPPED")?;
    namespace.remove("reader")?;
    let receipt = namespace.receipt("reader")?;
    let undelivered = receipt.predicate.pointer("/observed/outputUndelivered").and_then(serde_json::Value::as_bool);
    ensure(undelivered == Some(true), "the receipt does not say that output was not delivered")?;
    namespace.leaves_nothing()?;
    done()
}

fn terminal(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("tty")?;
    let mut terminal = Terminal::start(namespace.run_command("tty", &["--tty"], &["sh", "-i"]))?;
    terminal.shows("# ")?;
    terminal.type_text("test -t 0 && echo on-a-$((40 + 2))-terminal\n")?;
    terminal.shows("on-a-42-terminal")?;
    terminal.type_text("stty size\n")?;
    terminal.shows("24 80")?;
    terminal.type_text("exit 5\n")?;
    let code = terminal.finish()?;
    ensure(code == 5, format!("ctr run --tty ended with {code}"))?;
    namespace.receipt("tty")?;
    namespace.leaves_nothing()?;
    done()
}

fn null_io(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("null")?;
    let finished = namespace.run("null", &["--null-io"], &["echo", "unseen"])?.ok()?;
    ensure(finished.stdout.is_empty(), format!("--null-io printed {:?}", finished.text()))?;
    ensure(
        namespace.receipt("null")?.result_digest("stdout") == sha256(b"unseen\n"),
        "the receipt has another digest of stdout",
    )?;
    done()
}
