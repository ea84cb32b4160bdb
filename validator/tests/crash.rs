//! A validator's disk under `kill -9`: a child keeps votes and headers as fast as it can and tells over a pipe what has been kept; its parent
//! kills it at a random moment, many times, and looks after each whether all that was told is there and nothing can be said twice.
//!
//! The child is this test again, started by its name with a variable that says where to work. `BPI_CRASH_ROUNDS` sets the number of kills.
//! Absent on purpose: the loss of power, which tests of torn writes model (`durable::log`, `durable::watermark`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, HeaderDigest, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::justification::SignedRoundChange;
use bpi_protocol::consensus::message::{Body, Commit, Message, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::validators::Signers;
use bpi_validator::core::{Position, Record};
use bpi_validator::durable::watermark::{Mark, MessageDigest, Watermark};
use bpi_validator::durable::{Durable, Found, position_of};
use bpi_validator::keys::KeyFingerprint;

const KEY: KeyFingerprint = KeyFingerprint([7; 32]);
const CHAIN: ChainId = ChainId([9; 32]);
const FOLDER: &str = "BPI_CRASH_CHILD_FOLDER";
const ROUNDS: &str = "BPI_CRASH_ROUNDS";
const SIGNATURE: Signature = Signature([3; 48]);

fn open(folder: &Path) -> (Durable, Found) {
    Durable::open(&folder.join("data"), &folder.join("key.watermark"), CHAIN, KEY).unwrap()
}

fn vote(height: Height, round: Round, step: Step, seed: u8) -> Record {
    let sender = ValidatorIndex(1);
    let vote = Vote { sender, round, digest: HeaderDigest([seed; 32]), signature: SIGNATURE };
    // Each step's message has the seed in it: what was said may be said again, so only another message tells whether it is refused.
    let signed = SignedRoundChange { sender, round, prepared: None, signature: Signature([seed; 48]) };
    let body = match step {
        Step::RoundChange => Body::RoundChange(Box::new(RoundChange { signed, prepared: None })),
        Step::Proposal | Step::Prepare => Body::Prepare(vote),
        Step::Commit => Body::Commit(Commit { vote, partials: None }),
    };
    let message = Message { height, body };
    Record::Vote { position: position_of(&message).unwrap(), message: Box::new(message) }
}

fn prepared(height: Height, round: Round) -> Record {
    let header = Box::new(Header { height, round, ..Header::default() });
    Record::Prepared { header, votes: Votes { round, signers: Signers(7), signature: SIGNATURE } }
}

fn after(parent: &Header) -> (Header, Seal) {
    let (height, time) = (parent.height.next(), TimeMs(parent.time.0 + 1));
    let seal = Seal::Votes(Votes { round: Round(0), signers: Signers(7), signature: SIGNATURE });
    (Header { height, time, parent: parent.digest(), ..Header::default() }, seal)
}

/// Numbers that look random: the child's course and the moments of the kills.
struct Dice(u64);

impl Dice {
    /// Below a bound (SplitMix64, Steele et al. 2014).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a child has told: one line each, written only after it was kept.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// A vote and its seed.
    Vote(Position, u8),
    Prepared(Height, Round),
    Final(Height),
}

impl Told {
    fn line(self) -> String {
        match self {
            Self::Vote(Position { height, round, step }, seed) => {
                format!("@vote {height} {round} {} {seed}\n", step as u8)
            }
            Self::Prepared(height, round) => format!("@prepared {height} {round}\n"),
            Self::Final(height) => format!("@final {height}\n"),
        }
    }

    /// `None` for what the test runner prints, and for a line that the kill has cut.
    fn read(line: &str) -> Option<Self> {
        // The runner prints the test's name without ending the line.
        let words: Vec<_> = line.strip_suffix('\n')?.rsplit('@').next()?.split(' ').collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let (height, round) = (Height(number(1)?), Round(number(2).unwrap_or(0) as u32));
        match words[0] {
            "vote" => {
                let step = [Step::RoundChange, Step::Proposal, Step::Prepare, Step::Commit][number(3)? as usize];
                Some(Self::Vote(Position { height, round, step }, number(4)? as u8))
            }
            "prepared" => Some(Self::Prepared(height, round)),
            "final" => Some(Self::Final(height)),
            _ => None,
        }
    }
}

/// Keeps votes and headers until it is killed.
fn work(folder: &Path) {
    let (mut durable, found) = open(folder);
    assert!(!found.recovered.is_forgetful(), "a crash alone makes nobody forgetful");
    let mut dice = Dice(std::process::id().into());
    let mut out = std::io::stdout();
    let mut tell = |told: Told| out.write_all(told.line().as_bytes()).and_then(|()| out.flush()).unwrap();
    let mut round = found.recovered.votes.last().and_then(Message::round).map_or(Round(0), Round::next);
    loop {
        let height = durable.tip().height.next();
        let seed = dice.below(200) as u8;
        for step in [Step::RoundChange, Step::Prepare, Step::Commit] {
            let record = vote(height, round, step, seed);
            let Record::Vote { position, .. } = record else { unreachable!("a vote") };
            if step == Step::Commit && dice.below(2) == 0 {
                durable.persist_all(&[prepared(height, round), record]).unwrap();
                tell(Told::Prepared(height, round));
            } else {
                durable.persist(&record).unwrap();
            }
            tell(Told::Vote(position, seed));
        }
        if dice.below(3) == 0 {
            round = round.next();
        } else {
            let (header, seal) = after(durable.tip());
            durable.append(&header, &seal).unwrap();
            tell(Told::Final(header.height));
            round = Round(0);
        }
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_kept_is_lost_and_nothing_is_said_twice_over_many_kills", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// All that any child has told.
#[derive(Default)]
struct Ledger {
    votes: BTreeMap<Position, u8>,
    prepared: Option<(Height, Round)>,
    last_final: Height,
}

impl Ledger {
    fn take(&mut self, told: Told) {
        match told {
            Told::Vote(position, seed) => {
                let last = self.votes.last_key_value().map(|(last, _)| *last);
                assert!(last < Some(position), "{position:?} was said after {last:?}");
                self.votes.insert(position, seed);
            }
            Told::Prepared(height, round) => self.prepared = Some((height, round)),
            Told::Final(height) => self.last_final = height,
        }
    }

    fn compare(&mut self, durable: &mut Durable, found: &Found) {
        assert!(!found.recovered.is_forgetful());
        assert!(found.tip.height >= self.last_final, "a final header is lost");
        let next = found.tip.height.next();
        let kept: BTreeMap<Position, &Message> =
            found.recovered.votes.iter().map(|message| (position_of(message).unwrap(), message)).collect();
        for (position, seed) in self.votes.iter().filter(|(position, _)| position.height == next) {
            let Record::Vote { message, .. } = vote(next, position.round, position.step, *seed) else { unreachable!() };
            assert_eq!(kept.get(position), Some(&&*message), "a vote is lost");
        }
        if let Some((_, round)) = self.prepared.filter(|(height, _)| *height == next) {
            let found = found.recovered.prepared.as_ref().map(|(_, votes)| votes.round);
            assert!(found >= Some(round), "what was prepared is lost");
        }
        let Some((&last, &seed)) = self.votes.last_key_value() else { return };
        let mark = durable.watermark().unwrap().mark();
        assert!(mark.position >= last, "the watermark went back");
        // What was told cannot be said otherwise, nor anything before it.
        for position in self.votes.keys().rev().take(4) {
            assert!(durable.persist(&vote(position.height, position.round, position.step, 201)).is_err());
        }
        if mark.position == last {
            let Record::Vote { message, .. } = vote(last.height, last.round, last.step, seed) else { unreachable!() };
            assert_eq!(mark, Mark { position: last, digest: MessageDigest::of(&message) });
        }
        // Kept but not told before the kill: it may have been sent, and counts from here on.
        self.votes.retain(|position, _| position.height >= next);
        self.last_final = found.tip.height;
    }
}

#[test]
fn nothing_kept_is_lost_and_nothing_is_said_twice_over_many_kills() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return work(&PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().unwrap();
    Watermark::create(&folder.path().join("key.watermark"), KEY, Height(0)).unwrap();
    Durable::create(&folder.path().join("data"), CHAIN, &Header::default()).unwrap();
    let rounds = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    let (mut ledger, mut dice, mut told) = (Ledger::default(), Dice(1), 0_u64);
    for _ in 0..rounds {
        let mut child = start(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let after = Duration::from_micros(dice.below(250_000));
        // Only its own child, by the handle that has not been waited for.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            child.kill().unwrap();
            child.wait().unwrap()
        });
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            if let Some(what) = Told::read(&line) {
                ledger.take(what);
                told += 1;
            }
            line.clear();
        }
        let ended = killer.join().unwrap();
        assert_eq!(ended.code(), None, "the child ended by itself: {ended}");
        let (mut durable, found) = open(folder.path());
        ledger.compare(&mut durable, &found);
    }
    println!("{rounds} kills, {told} acknowledgements, tip {}", open(folder.path()).1.tip.height);
    assert!(told > rounds, "the children were killed before they had worked");
    open(folder.path()).0.headers().check().unwrap();
}
