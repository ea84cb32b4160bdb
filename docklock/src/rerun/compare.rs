//! Which parts of two runs are equal and which differ.

use std::collections::BTreeMap;

use bpi_protocol::run::Run;
use serde::Serialize;
use serde_json::Value;

/// The parts of a run, those that are given before those that come of them: what differs first is the likelier cause.
const PARTS: [(&str, &[&str]); 14] = [
    ("runtime", &["type", "platform", "runtime"]),
    ("image", &["image"]),
    ("configuration", &["config"]),
    ("cage", &["cage"]),
    ("inputs", &["inputs"]),
    ("parameters", &["params"]),
    ("limits", &["limits"]),
    ("trace", &["trace"]),
    ("exit", &["result.exitCode", "result.signal"]),
    ("stdout", &["result.stdout"]),
    ("stderr", &["result.stderr"]),
    ("outputs", &["result.outputs"]),
    ("refused calls", &["denied"]),
    ("answered calls", &["virtualised"]),
];

/// One member that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The part it belongs to.
    pub part: &'static str,
    /// Its path in run.json; entries of a list by their name.
    pub member: String,
    /// On the left; absent when it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// On the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
}

/// Two runs beside each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Parts without a difference.
    pub equal: Vec<&'static str>,
    /// Members that differ, by part, then by name.
    pub differ: Vec<Difference>,
}

impl Comparison {
    /// The first part that differs.
    pub fn first(&self) -> Option<&'static str> {
        self.differ.first().map(|difference| difference.part)
    }
}

/// Compares two runs.
pub fn compare(left: &Run, right: &Run) -> Comparison {
    let (left, right) = (members(left), members(right));
    let mut comparison = Comparison::default();
    for (part, prefixes) in PARTS {
        let belongs = |member: &str| {
            prefixes.iter().any(|prefix| {
                member.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
        };
        let mut names: Vec<&String> = left.keys().chain(right.keys()).filter(|name| belongs(name)).collect();
        names.sort();
        names.dedup();
        let before = comparison.differ.len();
        for name in names {
            let (left, right) = (left.get(name), right.get(name));
            if left != right {
                let member = name.clone();
                comparison.differ.push(Difference { part, member, left: left.cloned(), right: right.cloned() });
            }
        }
        if comparison.differ.len() == before {
            comparison.equal.push(part);
        }
    }
    comparison
}

/// Every leaf of a run by its path.
fn members(run: &Run) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // A run is strings, numbers, lists and maps with text keys: there is nothing in it that JSON has not.
    if let Ok(value) = serde_json::to_value(run) {
        flatten("", &value, &mut found);
    }
    found
}

/// Depth is bounded by the type of a run: four levels.
fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => match members.get("sha256") {
            Some(Value::String(digest)) if members.len() == 1 => {
                found.insert(path.to_owned(), format!("sha256:{digest}"));
            }
            _ => {
                for (name, member) in members {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    flatten(&path, member, found);
                }
            }
        },
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                let text = |name: &str| entry.get(name).and_then(Value::as_str);
                let key = match (text("name"), text("syscall"), text("errno")) {
                    (Some(name), _, _) => name.to_owned(),
                    (_, Some(syscall), Some(errno)) => format!("{syscall} {errno}"),
                    (_, Some(syscall), None) => syscall.to_owned(),
                    _ => index.to_string(),
                };
                flatten(&format!("{path}[{key}]"), entry, found);
            }
        }
        Value::String(text) => {
            found.insert(path.to_owned(), text.clone());
        }
        other => {
            found.insert(path.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A run with an input, a trace and a refused call.
    pub(in crate::rerun) fn run() -> Run {
        let digest = json!({ "sha256": "0".repeat(64) });
        let stream = json!({ "digest": digest, "bytes": 0 });
        let run = json!({
            "type": bpi_protocol::run::RUN_TYPE,
            "image": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest },
            "platform": "linux/amd64",
            "config": { "digest": digest },
            "cage": { "profile": "strict", "digest": digest },
            "runtime": { "name": "docklock", "abi": 2 },
            "inputs": [{ "name": "argv", "digest": digest }],
            "params": { "schedule": "turns", "seed": digest, "epoch": 1 },
            "limits": { "pids": 5 },
            "result": {
                "exitCode": 0,
                "stdout": stream,
                "stderr": stream,
                "outputs": { "scope": "layer", "digest": digest, "entries": 0 },
            },
            "trace": { "alg": "blake3", "digest": "0".repeat(64), "events": 7, "format": "docklock-trace/1" },
            "denied": [{ "syscall": "mount", "errno": "EPERM", "count": 1 }],
            "virtualised": [],
        });
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn a_run_is_equal_to_itself_in_every_part() {
        let comparison = compare(&run(), &run());
        assert_eq!((comparison.equal.len(), comparison.first()), (PARTS.len(), None));
    }

    #[test]
    fn every_member_belongs_to_a_part() {
        let all = compare(&run(), &Run { trace: None, image: None, ..run() });
        assert_eq!(
            all.differ.iter().map(|one| one.part).collect::<std::collections::BTreeSet<_>>(),
            ["image", "trace"].into()
        );
        for member in members(&run()).into_keys() {
            let parts = PARTS.iter().filter(|(_, prefixes)| prefixes.iter().any(|prefix| member.starts_with(prefix)));
            assert_eq!(parts.count(), 1, "{member}");
        }
    }

    #[test]
    fn what_is_given_is_named_before_what_comes_of_it() {
        let mut other = run();
        other.result.exit_code = Some(1);
        other.denied[0].count = 2;
        other.params.epoch = Some(2);
        let comparison = compare(&run(), &other);
        assert_eq!(comparison.first(), Some("parameters"));
        let members: Vec<_> = comparison.differ.iter().map(|one| one.member.as_str()).collect();
        assert_eq!(members, ["params.epoch", "result.exitCode", "denied[mount EPERM].count"]);
    }
}
