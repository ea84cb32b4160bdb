//! Instructions by which a program learns what no system call told it: `cpuid`, `xgetbv`, `rdpid`, `rdrand`, `rdseed`. Finding them in
//! code, making them trap, and reading what trapped.
//!
//! **Finding.** Their bytes are sought, then each candidate is judged by the instructions around it. x86 code has no marks, but decoding it
//! from a wrong place falls into step after a few instructions: so all places from 96 to 192 bytes before a candidate are decoded
//! towards it. If all agree that an instruction begins there, if what leads to it and what follows could be code, it is one. If all
//! agree that it lies inside another instruction, or what follows would crash, it is none. Everything else is [`Verdict::Unclear`].
//!
//! **Trapping.** Of a found instruction one byte is changed: its opcode's first, 0x0f, becomes [`TRAP`], which no x86-64 processor executes
//! for a program. Prefixes and operands stay, so what stands there still tells what stood there: no table goes with the address, and a
//! copy of patched code (fork(2), mremap(2), a program that moves its own code) traps and is answered like its original.
//!
//! Always true: what is not surely an instruction is left as it is. Absent on purpose: instructions hidden inside others, which only a
//! program that means to deceive jumps into; and those that fault by themselves (rdtsc, rdpmc, and sgdt and its like where the CPU has UMIP).

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// `HLT`: one byte, and a general protection fault for every program (Intel SDM, volume 2, HLT). An invalid opcode would do as well, but
/// hypervisors look at each of those first.
pub const TRAP: u8 = 0xf4;
/// First byte of every two-byte opcode.
const ESCAPE: u8 = 0x0f;
/// Longest instruction (Intel SDM, volume 2, 2.3.11).
pub const LENGTH_MAX: usize = 15;
/// How far before a candidate decoding starts; it starts at each byte of the first half.
const BEFORE_BYTES: usize = 192;
/// Instructions without anything odd that have to lead to a candidate.
const BEFORE_PLAIN: usize = 12;
/// Instructions after a candidate that are looked at.
const AFTER_LOOKED: usize = 16;
/// Sections of code begin at multiples of this; a linker fills what is left of the one before with zeroes.
const SECTION_BYTES: usize = 16;
/// Bytes compared at once while candidates are sought.
const STRIDE_BYTES: usize = 64;

/// What an instruction gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the processor is.
    Cpuid,
    /// Which register state the system saves: XCR0 or the part of it in use.
    Xgetbv,
    /// Number of the processor that executes it.
    Rdpid,
    /// Random bits.
    Rdrand,
    /// Seed bits.
    Rdseed,
}

/// One of these instructions, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it gives.
    pub kind: Kind,
    /// General register that takes the result, 0 to 15 in the order of encoding; 0 where registers are fixed.
    pub register: u8,
    /// Bits of the result: 16, 32 or 64.
    pub width: u8,
    /// Bytes of prefixes before its opcode.
    pub prefixes: usize,
    /// All its bytes.
    pub length: usize,
}

/// Reads the instruction at the beginning of `code`, whose opcode begins with `first`: 0x0f as compiled, or [`TRAP`] as patched.
/// `None` if it is no instruction of these, or one that faults as it stands.
pub fn read(code: &[u8], first: u8) -> Option<Found> {
    let (mut wide, mut narrow, mut repeat, mut extended) = (false, false, None, false);
    let mut at = 0;
    loop {
        match *code.get(at)? {
            0x66 => narrow = true,
            prefix @ (0xf2 | 0xf3) => repeat = Some(prefix),
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => {}
            rex @ 0x40..=0x4f => {
                // It counts only right before the opcode.
                if *code.get(at + 1)? == first {
                    (wide, extended) = (rex & 8 != 0, rex & 1 != 0);
                }
            }
            _ => break,
        }
        at += 1;
    }
    if code[at] != first {
        return None;
    }
    let width = if wide {
        64
    } else if narrow {
        16
    } else {
        32
    };
    let found =
        |kind, register, width, opcode| Some(Found { kind, register, width, prefixes: at, length: at + opcode });
    let found = match (*code.get(at + 1)?, code.get(at + 2)) {
        (0xa2, _) => found(Kind::Cpuid, 0, 32, 2),
        (0x01, Some(0xd0)) if !narrow && repeat.is_none() => found(Kind::Xgetbv, 0, 32, 3),
        (0xc7, Some(modrm @ 0xf0..)) => {
            let register = modrm & 7 | u8::from(extended) << 3;
            match (modrm & 8 != 0, repeat) {
                (false, None) => found(Kind::Rdrand, register, width, 3),
                (true, None) => found(Kind::Rdseed, register, width, 3),
                (true, Some(0xf3)) => found(Kind::Rdpid, register, 64, 3),
                _ => None,
            }
        }
        _ => None,
    };
    found.filter(|found| found.length <= LENGTH_MAX)
}

/// What stands at a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An instruction.
    Instruction(Found),
    /// Part of another one, or data.
    Nothing,
    /// Nobody can tell.
    Unclear(Kind),
}

/// What is in a range of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Offset of each opcode to change, and what it is, in order.
    pub sites: Vec<(usize, Found)>,
    /// Offset of each candidate that nobody can tell.
    pub unclear: Vec<(usize, Kind)>,
}

/// Looks through code that will be executed.
pub fn scan(code: &[u8]) -> Scan {
    scan_within(code, 0..code.len())
}

/// Bytes around a range that [`scan_within`] wants to see: before it, so that decoding falls into step; after it, to see where it leads.
pub const CONTEXT_BYTES: usize = (AFTER_LOOKED * LENGTH_MAX + LENGTH_MAX).next_multiple_of(SECTION_BYTES);

/// The same for opcodes that begin in `range` of `code`, which stands at a multiple of 16. Offsets are those of `code`.
pub fn scan_within(code: &[u8], range: std::ops::Range<usize>) -> Scan {
    let mut scan = Scan::default();
    for at in candidates(code).into_iter().filter(|at| range.contains(at)) {
        match judge(code, at) {
            Verdict::Instruction(found) => scan.sites.push((at, found)),
            Verdict::Unclear(kind) => scan.unclear.push((at, kind)),
            Verdict::Nothing => {}
        }
    }
    scan
}

/// Offsets of the bytes of these instructions' opcodes, wherever they stand.
pub fn candidates(code: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let Some(after) = code.get(1..) else { return found };
    let second = |byte: u8| (byte == 0xa2) | (byte == 0xc7) | (byte == 0x01);
    for (index, (first, next)) in code.chunks(STRIDE_BYTES).zip(after.chunks(STRIDE_BYTES)).enumerate() {
        // Without a branch, so that the compiler compares many bytes with one instruction.
        let any = first.iter().zip(next).fold(false, |any, (one, other)| any | ((*one == ESCAPE) & second(*other)));
        if any {
            let start = index * STRIDE_BYTES;
            found.extend((start..start + next.len()).filter(|at| kind_at(code, *at).is_some()));
        }
    }
    found
}

/// What the bytes at `at` would be, if they were an opcode without prefixes.
fn kind_at(code: &[u8], at: usize) -> Option<Kind> {
    read(code.get(at..)?, ESCAPE).filter(|found| found.prefixes == 0).map(|found| found.kind)
}

/// How decoding from one place comes to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// By an instruction with the candidate as its opcode.
    Hits(Found),
    /// By an instruction that has the candidate inside.
    Misses,
    /// Not at all.
    Crashes,
}

/// Judges the candidate at `at`.
pub fn judge(code: &[u8], at: usize) -> Verdict {
    let Some(kind) = kind_at(code, at) else { return Verdict::Nothing };
    let start = at.saturating_sub(BEFORE_BYTES);
    let window = &code[start..code.len().min(at + LENGTH_MAX)];
    let approach = Approach::of(window, at - start, start);
    let (hit, missed) = approach.votes();
    let end = at + hit.map_or(2, |found| found.length - found.prefixes);
    if crashes(&code[end.min(code.len())..]) {
        return Verdict::Nothing;
    }
    match (hit, missed) {
        (Some(found), false) if approach.is_plain() => Verdict::Instruction(found),
        (None, true) if approach.is_plain() => Verdict::Nothing,
        _ => Verdict::Unclear(kind),
    }
}

/// One place where decoding may begin.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How it goes on from here.
    fate: Fate,
    /// The instruction here is nothing odd.
    is_plain: bool,
    /// It is one that stands where a function begins, and too long to be chance: `endbr64`, padding.
    is_mark: bool,
    /// It lies in a gap between two sections, and the second begins there.
    gap_end: Option<usize>,
    /// Where the next one is.
    next: usize,
}

/// What one way to the candidate passes.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Instructions without anything odd, right before the candidate, gaps aside.
    plain: usize,
    /// Among them one that chance does not make.
    marked: bool,
    /// Something odd before those.
    odd: bool,
}

/// All ways to decode towards a candidate.
struct Approach {
    /// One for each byte up to the candidate.
    places: Vec<Place>,
    candidate: usize,
    /// The window begins where the code does.
    whole: bool,
}

impl Approach {
    /// `start`: where the window stands.
    fn of(window: &[u8], candidate: usize, start: usize) -> Self {
        let mut decoder = Decoder::new(64, window, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let nowhere = Place { fate: Fate::Crashes, is_plain: false, is_mark: false, gap_end: None, next: usize::MAX };
        let mut places = vec![nowhere; candidate + 1];
        for place in (0..=candidate).rev() {
            if decoder.set_position(place).is_err() {
                continue;
            }
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                continue;
            }
            let next = place + instruction.len();
            let gap_end = end_of_gap(window, place, start).filter(|end| *end <= candidate);
            let is_plain = is_plain(&instruction) && !is_zeroes(&window[place..]);
            let fate = match places.get(next) {
                Some(place) => place.fate,
                None => match read(&window[place..], ESCAPE) {
                    Some(found) if place + found.prefixes == candidate => Fate::Hits(found),
                    _ => Fate::Misses,
                },
            };
            let is_mark = matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Endbr64) && instruction.len() > 3;
            places[place] = Place { fate, is_plain, is_mark, gap_end, next };
        }
        Self { places, candidate, whole: candidate < BEFORE_BYTES }
    }

    /// Places far enough before the candidate to be in step when they come to it. Where the code begins nearer, its first byte.
    fn far(&self) -> std::ops::Range<usize> {
        if self.whole { 0..(self.candidate / 2).max(1) } else { 0..BEFORE_BYTES / 2 }
    }

    /// An instruction that some of the far places come to, and whether any of them misses it.
    fn votes(&self) -> (Option<Found>, bool) {
        let mut hit = None;
        let mut missed = false;
        for place in &self.places[self.far()] {
            match place.fate {
                Fate::Hits(found) => {
                    missed |= hit.is_some_and(|hit| hit != found);
                    hit = Some(found);
                }
                Fate::Misses => missed = true,
                Fate::Crashes => {}
            }
        }
        (hit, missed)
    }

    /// True when one of the ways to the candidate has nothing odd for long enough, or since the code began.
    fn is_plain(&self) -> bool {
        self.far().filter(|place| self.places[*place].fate != Fate::Crashes).any(|place| {
            let way = self.walk(place);
            way.plain >= BEFORE_PLAIN || way.marked || (self.whole && place == 0 && !way.odd)
        })
    }

    fn walk(&self, mut place: usize) -> Way {
        let mut way = Way::default();
        while place < self.candidate {
            let Place { is_plain, is_mark, gap_end, next, .. } = self.places[place];
            if let Some(end) = gap_end {
                place = end;
                continue;
            }
            if is_plain {
                way.plain += 1;
                way.marked |= is_mark;
            } else {
                way = Way { odd: true, ..Way::default() };
            }
            place = next;
        }
        way
    }
}

/// True when going on from here comes to what no program executes, before a jump or a return leads away.
fn crashes(code: &[u8]) -> bool {
    let code = &code[..code.len().min(AFTER_LOOKED * LENGTH_MAX)];
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    for _ in 0..AFTER_LOOKED {
        let place = decoder.position();
        if !decoder.can_decode() {
            return false;
        }
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            // Cut off by the end of the code rather than wrong.
            return decoder.can_decode() || code.len() - place >= LENGTH_MAX;
        }
        if !is_plain(&instruction) || is_zeroes(&code[place..]) {
            return true;
        }
        if matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        ) {
            return false;
        }
    }
    false
}

/// Where the section after a gap begins, if `place` lies in one: zeroes up to a multiple of 16, fewer than 16. They stand between two stretches of code,
/// as those of a program's stubs and of its functions, and are executed by nobody; what begins behind them is in step.
fn end_of_gap(window: &[u8], place: usize, start: usize) -> Option<usize> {
    let end = (start + place).next_multiple_of(SECTION_BYTES) - start;
    // One zero byte may begin an instruction.
    let is_gap = end > place + 1 && window.get(place..end)?.iter().all(|byte| *byte == 0);
    // More than a gap: what holds so many zeroes is a table.
    let is_more = end >= SECTION_BYTES && window[end - SECTION_BYTES..end].iter().all(|byte| *byte == 0);
    (is_gap && !is_more).then_some(end)
}

/// `add [rax], al`: what zeroes decode to.
fn is_zeroes(code: &[u8]) -> bool {
    code.starts_with(&[0, 0])
}

/// False for what compilers and people do not write into programs: the system's own instructions and those from before 64 bits.
fn is_plain(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let odd = match instruction.mnemonic() {
        // Ends what does not return.
        M::Hlt => return true,
        M::Insb | M::Insd | M::Insw | M::Outsb | M::Outsd | M::Outsw | M::In | M::Out => true,
        M::Loop
        | M::Loope
        | M::Loopne
        | M::Enter
        | M::Xlatb
        | M::Iret
        | M::Iretd
        | M::Iretq
        | M::Retf
        | M::Int
        | M::Int1 => true,
        M::Lfs
        | M::Lgs
        | M::Lss
        | M::Fbld
        | M::Fbstp
        | M::Wait
        | M::Cmc
        | M::Sysexit
        | M::Sysenter
        | M::Lsl
        | M::Lar => true,
        _ => instruction.is_privileged() || is_far(instruction) || uses_segment(instruction),
    };
    !odd
}

fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far()
        || instruction.is_call_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
}

/// A segment register as an operand.
fn uses_segment(instruction: &Instruction) -> bool {
    let segment = |register: Register| register.is_segment_register();
    (0..instruction.op_count())
        .any(|operand| instruction.op_kind(operand) == OpKind::Register && segment(instruction.op_register(operand)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A function as compilers make it around `middle`.
    fn function(middle: &[u8]) -> Vec<u8> {
        // endbr64; push rbp; mov rbp, rsp; push rbx; xor ecx, ecx; mov eax, 1
        let mut code = vec![0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x31, 0xc9, 0xb8, 1, 0, 0, 0];
        code.extend_from_slice(middle);
        // mov [rdi], eax; pop rbx; pop rbp; ret
        code.extend_from_slice(&[0x89, 0x07, 0x5b, 0x5d, 0xc3]);
        code
    }

    /// Sixteen functions with something between, and where it is.
    fn program(middle: &[u8]) -> (Vec<u8>, usize) {
        let mut code: Vec<u8> = (0..16).flat_map(|_| function(&[0x31, 0xd2])).collect();
        let at = code.len() + 16;
        code.extend(function(middle));
        code.extend((0..4).flat_map(|_| function(&[0x31, 0xd2])));
        (code, at)
    }

    #[test]
    fn each_instruction_is_found_with_its_registers_and_width() {
        for (bytes, kind, register, width) in [
            (&[0x0f, 0xa2][..], Kind::Cpuid, 0, 32),
            (&[0x0f, 0x01, 0xd0], Kind::Xgetbv, 0, 32),
            (&[0xf3, 0x0f, 0xc7, 0xf8], Kind::Rdpid, 0, 64),
            (&[0x0f, 0xc7, 0xf1], Kind::Rdrand, 1, 32),
            (&[0x48, 0x0f, 0xc7, 0xf1], Kind::Rdrand, 1, 64),
            (&[0x49, 0x0f, 0xc7, 0xf7], Kind::Rdrand, 15, 64),
            (&[0x66, 0x0f, 0xc7, 0xf0], Kind::Rdrand, 0, 16),
            (&[0x66, 0x41, 0x0f, 0xc7, 0xf8], Kind::Rdseed, 8, 16),
        ] {
            let (mut code, at) = program(bytes);
            let prefixes = bytes.iter().position(|byte| *byte == 0x0f).unwrap();
            let expected = Found { kind, register, width, prefixes, length: bytes.len() };
            let scan = scan(&code);
            assert_eq!((&scan.sites[..], &scan.unclear[..]), (&[(at + prefixes, expected)][..], &[][..]), "{bytes:x?}");
            code[at + prefixes] = TRAP;
            assert_eq!(read(&code[at..], TRAP), Some(expected));
            assert_eq!(super::scan(&code), Scan::default());
        }
    }

    #[test]
    fn bytes_inside_another_instruction_are_none() {
        // mov eax, 0x0000a20f
        let (code, _) = program(&[0xb8, 0x0f, 0xa2, 0, 0]);
        assert_eq!((candidates(&code).len(), scan(&code)), (1, Scan::default()));
        // movabs rax, with rdrand eax in the middle
        let (code, _) = program(&[0x48, 0xb8, 1, 2, 0x0f, 0xc7, 0xf0, 3, 4, 5]);
        assert_eq!((candidates(&code).len(), scan(&code)), (1, Scan::default()));
    }

    #[test]
    fn bytes_in_data_are_left_alone() {
        // What follows the candidate would be privileged, or no instruction.
        for after in [[0xf3, 0x6c, 0x06, 0x07], [0x0f, 0x30, 0x00, 0x00], [0x06, 0x06, 0x06, 0x06]] {
            let (code, _) = program(&[&[0x0f, 0xa2], &after[..]].concat());
            assert!(scan(&code).sites.is_empty(), "{after:x?}");
        }
    }

    #[test]
    fn what_only_some_ways_come_to_is_unclear() {
        // Nothing but the candidates: every place is as good as any other.
        let code = [0x0f, 0xa2].repeat(200);
        let scan = scan(&code);
        assert!(scan.sites.len() + scan.unclear.len() == 200, "{}", scan.sites.len());
        // A long row of data that decodes to odd things leads to it.
        let mut code = [0x6c, 0x06, 0x37].repeat(100);
        code.extend_from_slice(&[0x31, 0xc0, 0x0f, 0xa2, 0xc3]);
        assert_eq!(super::scan(&code).unclear, [(302, Kind::Cpuid)]);
    }

    #[test]
    fn what_faults_by_itself_is_not_read() {
        for bytes in [
            &[0xf0, 0x0f, 0xa2][..],
            &[0xf3, 0x0f, 0xc7, 0xf0],
            &[0x66, 0x0f, 0x01, 0xd0],
            &[0x0f, 0xc7, 0x30],
            &[0x0f],
        ] {
            assert_eq!(read(bytes, ESCAPE), None, "{bytes:x?}");
        }
        assert_eq!(read(&[[0x66; 14].as_slice(), &[0x0f, 0xa2]].concat(), ESCAPE), None);
    }

    #[test]
    fn a_program_that_begins_with_it_is_known_from_its_first_byte() {
        let code = [0x31, 0xc0, 0x0f, 0xa2, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(scan(&code).sites.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_looked_through(code in proptest::collection::vec(0_u8.., 0..600)) {
            let scan = scan(&code);
            for (at, found) in &scan.sites {
                let start = at - found.prefixes;
                proptest::prop_assert_eq!(read(&code[start..], ESCAPE), Some(*found));
            }
        }

        #[test]
        fn candidates_are_those_that_reading_at_each_byte_finds(bytes in proptest::collection::vec(0_usize..6, 0..300)) {
            let code: Vec<u8> = bytes.iter().map(|index| [0x0f, 0xa2, 0xc7, 0xf8, 0x01, 0xd0][*index]).collect();
            let slow: Vec<usize> = (0..code.len()).filter(|at| kind_at(&code, *at).is_some()).collect();
            proptest::prop_assert_eq!(candidates(&code), slow);
        }
    }

    #[test]
    fn what_begins_behind_the_gap_between_two_sections_is_code() {
        // jmp [rip + 0x2fba]; push 2; jmp: a stub of a linker, 16 bytes.
        let stub = [0xff, 0x25, 0xba, 0x2f, 0, 0, 0x68, 2, 0, 0, 0, 0xe9, 0xc0, 0xff, 0xff, 0xff];
        let with_gap = |zeroes: usize| {
            let mut code: Vec<u8> = stub.repeat(11);
            // jmp [rip + 0x2f3a]; xchg ax, ax
            code.extend([0xff, 0x25, 0x3a, 0x2f, 0, 0, 0x66, 0x90]);
            code.extend(vec![0; zeroes]);
            let begin = code.len();
            // push r15; xor eax, eax; push r14; push rbp; push rbx; sub rsp, 0x18; cpuid
            code.extend([0x41, 0x57, 0x31, 0xc0, 0x41, 0x56, 0x55, 0x53, 0x48, 0x83, 0xec, 0x18, 0x0f, 0xa2]);
            code.extend((0..4).flat_map(|_| function(&[0x31, 0xd2])));
            judge(&code, begin + 12)
        };
        assert!(matches!(with_gap(8), Verdict::Instruction(Found { kind: Kind::Cpuid, .. })));
        // So many are no gap, and these do not reach to where a section begins.
        for zeroes in [6, 24, 40] {
            assert_eq!(with_gap(zeroes), Verdict::Unclear(Kind::Cpuid), "{zeroes}");
        }
    }
}
