//! The relays between real pipes, with a thread of the test as the process.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use super::*;

fn streams(stdin: Stdio, stdout: Stdio) -> (Streams, ContainerStreams) {
    let io = Io { stdin, stdout, stderr: Stdio::Null, terminal: false };
    let mut prepared = Prepared::open(io, Path::new("/nonexistent")).unwrap();
    let ends = prepared.take_container_streams();
    (prepared.run().unwrap(), ends)
}

fn client_pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    (File::from(read), write)
}

fn digest(bytes: &[u8]) -> StreamDigest {
    StreamDigest { digest: Sha256Digest::of(bytes), bytes: bytes.len() as u64 }
}

#[test]
fn what_a_process_writes_reaches_its_client_and_the_hash() {
    let (mut client, sink) = client_pipe();
    let (streams, mut ends) = streams(Stdio::Null, Stdio::Fd(sink));
    let mut stdout = File::from(ends.stdout.take().unwrap());
    let text = vec![b'x'; 3 * BUFFER_BYTES + 17];
    let expected = text.clone();
    let writer = std::thread::spawn(move || stdout.write_all(&text).unwrap());
    drop(ends);
    let mut seen = vec![0; expected.len()];
    client.read_exact(&mut seen).unwrap();
    writer.join().unwrap();
    let measured = streams.finish().unwrap().unwrap();
    assert_eq!(seen, expected);
    assert_eq!(measured.stdout, digest(&expected));
    assert!(!measured.undelivered);
}

#[test]
fn a_client_that_is_gone_changes_no_digest() {
    let (client, sink) = client_pipe();
    drop(client);
    let (streams, mut ends) = streams(Stdio::Null, Stdio::Fd(sink));
    let mut stdout = File::from(ends.stdout.take().unwrap());
    drop(ends);
    stdout.write_all(b"nobody hears this").unwrap();
    drop(stdout);
    let measured = streams.finish().unwrap().unwrap();
    assert_eq!(measured.stdout, digest(b"nobody hears this"));
    assert!(measured.undelivered);
}

#[test]
fn only_what_the_process_consumed_of_its_input_is_hashed() {
    let (source, client) = client_pipe();
    let (streams, mut ends) = streams(Stdio::Fd(source.into()), Stdio::Null);
    File::from(client).write_all(b"first line\nsecond line\n").unwrap();
    let mut stdin = File::from(ends.stdin.take().unwrap());
    let mut line = [0; 11];
    stdin.read_exact(&mut line).unwrap();
    drop((stdin, ends));
    let measured = streams.finish().unwrap().unwrap();
    assert_eq!(measured.stdin, digest(b"first line\n"));
}

#[test]
fn the_process_sees_the_end_of_its_input() {
    let (source, client) = client_pipe();
    let (streams, mut ends) = streams(Stdio::Fd(source.into()), Stdio::Null);
    let text = vec![b'y'; 200_000];
    let sent = text.clone();
    let writer = std::thread::spawn(move || File::from(client).write_all(&sent).unwrap());
    let mut seen = Vec::new();
    File::from(ends.stdin.take().unwrap()).read_to_end(&mut seen).unwrap();
    writer.join().unwrap();
    drop(ends);
    assert_eq!(seen, text);
    assert_eq!(streams.finish().unwrap().unwrap().stdin, digest(&text));
}

#[test]
fn closing_the_input_lets_what_was_written_through_first() {
    let (source, client) = client_pipe();
    let (streams, mut ends) = streams(Stdio::Fd(source.into()), Stdio::Null);
    let mut client = File::from(client);
    client.write_all(b"all of it").unwrap();
    streams.close_stdin().unwrap();
    let mut seen = String::new();
    File::from(ends.stdin.take().unwrap()).read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "all of it");
    drop((ends, client));
    assert_eq!(streams.finish().unwrap().unwrap().stdin, digest(b"all of it"));
}

#[test]
fn a_second_finish_says_nothing_and_waits_for_nothing() {
    let (streams, ends) = streams(Stdio::Null, Stdio::Null);
    drop(ends);
    assert!(streams.finish().unwrap().is_some());
    assert_eq!(streams.finish().unwrap(), None);
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let io = Io { stdout: Stdio::Path("/nonexistent/out".into()), ..Io::default() };
    let refusal = Prepared::open(io, Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(refusal.contains("/nonexistent/out") && refusal.contains("stdout"), "{refusal}");
}

#[test]
fn a_file_that_the_client_also_writes_keeps_one_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut client = File::create(&path).unwrap();
    client.write_all(b"before ").unwrap();
    let (streams, mut ends) = streams(Stdio::Null, Stdio::Fd(client.try_clone().unwrap().into()));
    File::from(ends.stdout.take().unwrap()).write_all(b"container ").unwrap();
    drop(ends);
    streams.finish().unwrap();
    client.write_all(b"after").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before container after");
}
