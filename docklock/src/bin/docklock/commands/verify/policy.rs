//! Acceptance policies in Rego: the checker's own answer to "and is this what I want?".
//!
//! A policy comes from whoever checks, but often by way of a repository, so it is judged in a process of its own: `docklock policy-cell`,
//! which reads policy, data and input from its standard input, then can open nothing more, has a bound on its memory and on its
//! processor time, and writes its answer. Without `--policy` no such process starts. Always true: an undefined, missing or broken answer
//! is never an acceptance, and what a builtin refuses ends the judgment (`not f(x)` must not hold because `f` failed). Absent on purpose:
//! clock, network, files, environment; what a policy has to know of the world comes with `--policy-data`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bpi_protocol::chain::{Entry, Record};
use bpi_protocol::evidence::Evidence;
use bpi_protocol::verify::{Report, RowName, Ruling, Status};
use nix::sys::resource::{Resource, setrlimit};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::read_bounded;
use crate::failure::Failure;
use crate::output::print;

/// Longest policy.
const POLICY_BYTES_MAX: usize = 256 << 10;
/// Longest data: twenty thousand digests with their names.
const DATA_BYTES_MAX: usize = 4 << 20;
/// Longest question: policy and data with every byte escaped as six, and an input of less than 1 MiB.
const QUESTION_BYTES_MAX: u64 = 32 << 20;
/// Longest answer: [`REASONS_MAX`] reasons of [`REASON_CHARS_MAX`] characters, escaped.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Most reasons that are told.
const REASONS_MAX: usize = 32;
/// Longest reason that is told.
const REASON_CHARS_MAX: usize = 300;
/// How long a policy may think; the starters take less than a millisecond.
const THINKING_MS_MAX: u64 = 1_000;
/// Processor time of the whole process in seconds: reading included, and past every builtin that does not look at the clock.
const CPU_S_MAX: u64 = 3;
/// Address space of the process: the program itself, and 100 times the longest data.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// What the cell is asked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    name: String,
    policy: String,
    data: serde_json::Value,
    input: serde_json::Value,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Answer {
    Ruled { accept: bool, reasons: BTreeSet<String> },
    Broken { reason: String },
}

/// What the policy in `path` says of the evidence.
pub(super) fn judge(path: &Path, data: Option<&Path>, evidence: &Evidence, report: &Report) -> Result<Ruling, Failure> {
    let broken = |reason: String| Failure::Policy { path: path.to_path_buf(), reason };
    let policy = read_text(path, POLICY_BYTES_MAX).map_err(broken)?;
    let data = match data {
        None => json!({}),
        Some(path) => {
            let broken = |reason: String| Failure::PolicyData { path: path.to_path_buf(), reason };
            let text = read_text(path, DATA_BYTES_MAX).map_err(broken)?;
            let data: serde_json::Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
            match &data {
                serde_json::Value::Object(members) if !members.contains_key("bpi") => data,
                serde_json::Value::Object(_) => {
                    return Err(broken("its member \"bpi\" would stand where the policy's own rules are".to_owned()));
                }
                _ => return Err(broken("it is no JSON object".to_owned())),
            }
        }
    };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let question = Question { name: name.clone(), policy, data, input: input(evidence, report) };
    match ask(&question)? {
        Some(Answer::Ruled { accept, reasons }) => Ok(Ruling { policy: name, accept, reasons }),
        Some(Answer::Broken { reason }) => Err(broken(reason)),
        None => {
            Err(Failure::PolicyLimit { path: path.to_path_buf(), cpu_s: CPU_S_MAX, memory_mib: MEMORY_BYTES_MAX >> 20 })
        }
    }
}

/// A file's text, or why there is none.
fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    let bytes = read_bounded(path, bytes_max).map_err(|source| format!("it cannot be read: {source}"))?;
    if bytes.len() > bytes_max {
        return Err(format!("it is longer than the limit of {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))
}

/// What a policy knows as `input`.
fn input(evidence: &Evidence, report: &Report) -> serde_json::Value {
    let rows: BTreeMap<&str, Status> = report.rows.iter().map(|row| (row.name.key(), row.status)).collect();
    let mut input = json!({ "level": report.level, "rows": rows });
    if let Ok(Entry { record: Record::Receipt(receipt), subject, .. }) = evidence.entry() {
        input["run"] = json!(receipt.run);
        input["runHash"] = json!(subject.to_string());
        input["receipt"] = json!({
            "assurance": receipt.assurance,
            "observed": receipt.observed,
            "host": receipt.host,
            "chain": receipt.chain,
        });
    }
    // Of a header that is not shown to be final nobody knows who wrote it.
    if let (Some(proof), Status::Pass) = (evidence.finality(), report.status(RowName::Finality)) {
        let (height, time) = (proof.header.height.0, proof.header.time.0);
        let (chain, tenant) = (proof.chain.to_string(), proof.tenant.to_string());
        input["final"] = json!({ "chain": chain, "tenant": tenant, "height": height, "timeMs": time });
    }
    input
}

/// Asks a process of its own; none when it was ended by one of its limits.
fn ask(question: &Question) -> Result<Option<Answer>, Failure> {
    let failed = |deed| move |source| Failure::System { deed, source };
    let bytes = serde_json::to_vec(question).map_err(|error| failed("write down the policy's input")(error.into()))?;
    let mut cell = Command::new("/proc/self/exe");
    cell.arg("policy-cell").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = cell.spawn().map_err(failed("start the process that judges by the policy"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        match stdin.write_all(&bytes) {
            // It has ended already; what it left says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(failed("hand the policy its input")(error));
            }
            _ => {}
        }
    }
    let mut answer = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed("read what the policy says"))?;
    }
    let status = child.wait().map_err(failed("wait for the policy"))?;
    Ok(if status.success() { serde_json::from_slice(&answer).ok() } else { None })
}

/// The process of its own: `docklock policy-cell`.
pub(crate) fn cell() -> Result<u8, Failure> {
    let failed = |deed| move |source| Failure::System { deed, source };
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(QUESTION_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed("read what the policy is asked"))?;
    let limits = [
        (Resource::RLIMIT_CPU, CPU_S_MAX),
        (Resource::RLIMIT_AS, MEMORY_BYTES_MAX),
        (Resource::RLIMIT_NOFILE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit, limit).map_err(|errno| failed("bound the policy")(errno.into()))?;
    }
    let answer = match serde_json::from_slice(&bytes) {
        Ok(question) => evaluate(question),
        Err(error) => Answer::Broken { reason: format!("its input: {error}") },
    };
    print(&serde_json::to_string(&answer).map_err(|error| failed("write down the policy's answer")(error.into()))?)?;
    Ok(0)
}

fn evaluate(question: Question) -> Answer {
    match rule(question) {
        Ok((accept, reasons)) => Answer::Ruled { accept, reasons },
        Err(reason) => Answer::Broken { reason: reason.chars().take(1_000).collect() },
    }
}

fn rule(question: Question) -> Result<(bool, BTreeSet<String>), String> {
    let said = |error: anyhow::Error| brief(&error.to_string());
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    // Clocks are looked at every 512 steps of the interpreter, some ten microseconds apart.
    let check_interval = NonZeroU32::new(512).unwrap_or(NonZeroU32::MIN);
    let limit = Duration::from_millis(THINKING_MS_MAX);
    engine.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval });
    let package = engine.add_policy(question.name, question.policy).map_err(said)?;
    if package != "data.bpi" {
        return Err(format!("its package is {package:?}; it has to begin with `package bpi`"));
    }
    engine.add_data_json(&question.data.to_string()).map_err(said)?;
    engine.set_input_json(&question.input.to_string()).map_err(said)?;
    let accept = match ask_for(&mut engine, "data.bpi.accept")? {
        Some(Value::Bool(accept)) => accept,
        Some(other) => return Err(format!("data.bpi.accept is {other}; it has to be true or false")),
        None => {
            return Err("data.bpi.accept is undefined for this evidence; write `default accept := false`".to_owned());
        }
    };
    let mut reasons = BTreeSet::new();
    if !accept {
        let found = match ask_for(&mut engine, "data.bpi.reasons")? {
            None => Vec::new(),
            Some(Value::Set(set)) => set.iter().cloned().collect(),
            Some(Value::Array(list)) => list.iter().cloned().collect(),
            Some(_) => return Err("data.bpi.reasons is no set of strings".to_owned()),
        };
        let all = found.len();
        for reason in found.into_iter().take(REASONS_MAX) {
            let Value::String(reason) = reason else {
                return Err("data.bpi.reasons has a member that is no string".to_owned());
            };
            reasons.insert(reason.chars().take(REASON_CHARS_MAX).collect());
        }
        if all > REASONS_MAX {
            reasons.insert(format!("{} reasons more", all - REASONS_MAX));
        }
    }
    Ok((accept, reasons))
}

/// regorus shows place, line and a caret over several lines; a sentence has room for the place and the words.
fn brief(error: &str) -> String {
    let after = |mark: &str| error.lines().find_map(|line| line.trim_start().strip_prefix(mark).map(str::trim));
    match (after("-->"), after("error:")) {
        (Some(place), Some(words)) => format!("{place}: {words}"),
        _ => error.replace('\n', " "),
    }
}

fn ask_for(engine: &mut Engine, query: &str) -> Result<Option<Value>, String> {
    let results = engine.eval_query(query.to_owned(), false).map_err(|error| brief(&error.to_string()))?;
    let value = results.result.into_iter().next().and_then(|result| result.expressions.into_iter().next());
    Ok(value.map(|expression| expression.value).filter(|value| *value != Value::Undefined))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(policy: &str) -> Answer {
        let input = json!({ "run": { "result": { "exitCode": 0 } } });
        evaluate(Question { name: "p.rego".to_owned(), policy: policy.to_owned(), data: json!({"limit": 3}), input })
    }

    fn broken(policy: &str) -> String {
        match asked(policy) {
            Answer::Broken { reason } => reason,
            Answer::Ruled { accept, .. } => panic!("ruled: {accept}"),
        }
    }

    #[test]
    fn what_a_policy_accepts_is_accepted_and_what_it_refuses_has_its_reasons() {
        let yes = "package bpi\ndefault accept := false\naccept if input.run.result.exitCode < data.limit\n";
        assert!(matches!(asked(yes), Answer::Ruled { accept: true, .. }));
        let no = "package bpi\naccept := false\nreasons contains \"b\"\nreasons contains \"a\"\n";
        let Answer::Ruled { accept: false, reasons } = asked(no) else { panic!() };
        assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_is_no_answer_is_broken_and_never_an_acceptance() {
        assert!(broken("package bpi\naccept if input.nothing\n").contains("undefined"));
        assert!(broken("package bpi\naccept := 1\n").contains("true or false"));
        assert!(broken("package other\naccept := true\n").contains("package bpi"));
        assert_eq!(broken("package bpi\naccept := \n"), "p.rego:3:1: expecting expression");
        assert!(broken("package bpi\naccept := false\nreasons := {1}\n").contains("string"));
    }

    #[test]
    fn a_builtin_that_fails_does_not_make_its_negation_true() {
        let reason = broken("package bpi\naccept if not to_number(\"x\") == 1\n");
        assert!(!reason.is_empty());
    }

    #[test]
    fn no_policy_reaches_the_world() {
        for call in [
            "http.send({\"method\": \"GET\", \"url\": \"http://127.0.0.1\"})",
            "opa.runtime()",
            "time.now_ns()",
            "net.lookup_ip_addr(\"localhost\")",
        ] {
            let reason = broken(&format!("package bpi\naccept if {call}\n"));
            assert!(!reason.is_empty(), "{call}");
        }
    }

    #[test]
    fn a_policy_that_thinks_too_long_is_stopped() {
        let slow = "package bpi\naccept if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c == 0 }\n";
        assert!(broken(slow).contains("time limit"));
    }
}
