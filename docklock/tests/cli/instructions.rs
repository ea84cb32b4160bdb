//! Programs that ask the processor instead of the kernel, under `docklock run --profile strict`. They are written byte by byte: no
//! compiler has a say in what stands in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::containers::cannot_run;
use crate::host::{Host, stderr};

/// `mov edi, 0; mov eax, 60; syscall`: exit(2).
const EXIT: [u8; 12] = [0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
/// `push rax; mov edi, 1; mov rsi, rsp; mov edx, 8; mov eax, 1; syscall`: writes rax to standard output.
const TELL: [u8; 21] = [0x50, 0xbf, 1, 0, 0, 0, 0x48, 0x89, 0xe6, 0xba, 8, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0x0f, 0x05];

/// A static program of one page of code (elf(5)).
fn program(code: &[&[u8]]) -> Vec<u8> {
    const START: u64 = 0x40_1000;
    let code = code.concat();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers behind this header, no sections, no flags, sizes, one header.
    elf.extend([START, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable: offset, address twice, size twice, alignment.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    elf.extend([0x1000, START, START, code.len() as u64, code.len() as u64, 0x1000].map(u64::to_le_bytes).concat());
    elf.resize(0x1000, 0);
    elf.extend(code);
    elf
}

/// Standard output of the program, and the assurance of its receipt.
fn strict(code: &[&[u8]], seed: &str) -> (Vec<u8>, Value) {
    let host = Host::new();
    let root = host.path("root");
    for folder in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("program"), program(code)).unwrap();
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let evidence = host.path("evidence");
    let arguments =
        ["run", "--quiet", "--pin", "--rootfs", root.to_str().unwrap(), "--profile", "strict", "--seed", seed];
    let output = host.run(&[&arguments[..], &["--receipt-dir", evidence.to_str().unwrap(), "--", "/program"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bundle: Value = serde_json::from_slice(&fs::read(evidence.join("receipt.sigstore.json")).unwrap()).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let statement: Value = serde_json::from_slice(&base64(payload)).unwrap();
    (output.stdout, statement["predicate"]["assurance"].clone())
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let group = |digits: &[u32]| {
        let bits = digits.iter().enumerate().fold(0, |sum, (place, digit)| sum | digit << (18 - 6 * place));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

fn source<'a>(assurance: &'a Value, name: &str) -> (&'a str, Option<&'a str>) {
    let found = assurance["sources"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap();
    (found["status"].as_str().unwrap(), found["reason"].as_str())
}

/// Nothing but /proc, as long as a name can lead past its rules, keeps these runs from the strongest claim.
fn expect_any_host(assurance: &Value) {
    let expected = if source(assurance, "procfs").0 == "uncontrolled" { "D1" } else { "D3" };
    assert_eq!(assurance["level"], expected, "{assurance}");
}

#[test]
fn a_program_without_such_instructions_leaves_the_processor_alone() {
    if cannot_run() {
        return;
    }
    let (_, assurance) = strict(&[&EXIT], "1");
    assert_eq!([source(&assurance, "cpuid"), source(&assurance, "rdrand")], [("not-exercised", None); 2]);
    expect_any_host(&assurance);
}

#[test]
fn rdrand_gives_the_seeds_bytes_and_is_controlled() {
    if cannot_run() {
        return;
    }
    // rdrand rax
    let code: [&[u8]; 3] = [&[0x48, 0x0f, 0xc7, 0xf0], &TELL, &EXIT];
    let (first, assurance) = strict(&code, "1");
    let (again, _) = strict(&code, "1");
    let (other, _) = strict(&code, "2");
    assert_eq!(source(&assurance, "rdrand"), ("controlled", None));
    assert_eq!((first.len(), &first), (8, &again));
    assert_ne!(first, other);
    expect_any_host(&assurance);
}

#[test]
fn cpuid_names_the_same_processor_everywhere() {
    if cannot_run() {
        return;
    }
    // xor eax, eax; cpuid; mov rax, rbx
    let (said, assurance) = strict(&[&[0x31, 0xc0, 0x0f, 0xa2, 0x48, 0x89, 0xd8], &TELL, &EXIT], "1");
    assert_eq!((&said[..4], source(&assurance, "cpuid")), (&b"Genu"[..], ("controlled", None)));
    expect_any_host(&assurance);
}

#[test]
fn a_program_that_makes_code_at_run_time_is_told_as_uncontrolled_with_the_reason() {
    if cannot_run() {
        return;
    }
    // mmap(0, 4096, read write exec, private anonymous, -1, 0): xor edi, edi; mov esi, 4096; mov edx, 7; mov r10d, 34; mov r8, -1; xor r9d, r9d;
    // mov eax, 9; syscall
    let map: [u8; 35] = [
        0x31, 0xff, 0xbe, 0, 0x10, 0, 0, 0xba, 7, 0, 0, 0, 0x41, 0xba, 34, 0, 0, 0, 0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff,
        0xff, 0x45, 0x31, 0xc9, 0xb8, 9, 0, 0, 0, 0x0f, 0x05,
    ];
    let (_, assurance) = strict(&[&map, &EXIT], "1");
    for name in ["cpuid", "rdrand"] {
        let (status, reason) = source(&assurance, name);
        assert_eq!(status, "uncontrolled", "{name}");
        assert!(reason.is_some_and(|reason| reason.contains("code at run time")), "{reason:?}");
    }
    assert_eq!(assurance["level"], "D1");
}
