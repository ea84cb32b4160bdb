//! The program and the example of its configuration.

use std::path::Path;
use std::process::{Command, Output};

use bpi_relay::config::Config;
use bpi_relay::switch::Settings;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/relay.toml");

fn relay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bpi-relay")).args(arguments).env_remove("BPI_RELAY_CONFIG").output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_example_is_read_and_shows_the_defaults() {
    let config = Config::load(Path::new(EXAMPLE)).unwrap();
    assert_eq!(config.settings([0; 16]), Settings::default());
    let least = Config::parse(Path::new("/x"), "[identity]\nworkload_api = \"/a\"").unwrap();
    assert_eq!(Config { identity: config.identity.clone(), directory: config.directory.clone(), ..least }, config);
}

#[test]
fn check_names_the_file_that_is_missing() {
    let output = relay(&["--config", EXAMPLE, "check"]);
    assert_eq!(output.status.code(), Some(2));
    let (_, error) = said(&output);
    assert!(error.starts_with("bpi-relay: BR0102: identity.svid_file = /etc/bpi/relay.svid.pem"), "{error}");
}

#[test]
fn check_prints_what_is_in_force_for_people_and_for_programs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("check");
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("relay.toml");
    std::fs::write(&config, "[identity]\nworkload_api = \"relay.toml\"\n").unwrap();
    let config = config.to_str().unwrap();
    let (text, _) = said(&relay(&["--config", config, "check"]));
    assert!(text.starts_with("listens at UDP 0.0.0.0:443 and TCP 0.0.0.0:443 for all networks"), "{text}");
    let (text, _) = said(&relay(&["--config", config, "check", "--print"]));
    assert!(text.contains("frames_per_s = 300000"), "{text}");
    let output = relay(&["--config", config, "check", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["masque"]["public_ports"].as_str(), output.status.code()), (Some("443"), Some(0)));
}

#[test]
fn a_relay_without_an_svid_ends_by_a_sentence() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-svid");
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("relay.toml");
    std::fs::write(&config, "[identity]\nsvid_file = \"relay.toml\"\nbundle_file = \"relay.toml\"\n").unwrap();
    let output = relay(&["--config", config.to_str().unwrap(), "run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("bpi-relay: BR0301: "), "{}", said(&output).1);
}

#[test]
fn version_manual_and_completions_are_there() {
    let (version, _) = said(&relay(&["--version"]));
    assert!(version.starts_with("bpi-relay 0.1.0 (") && version.trim_end().ends_with(')'), "{version}");
    assert!(said(&relay(&["man"])).0.contains("BPI_RELAY_CONFIG"));
    for shell in ["bash", "fish", "zsh"] {
        assert!(said(&relay(&["completions", shell])).0.contains("bpi-relay"));
    }
}
