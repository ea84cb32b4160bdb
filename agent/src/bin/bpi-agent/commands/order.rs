//! `bpi-agent order`: asks the running agent to run a container, and waits for its evidence.

use std::io::Write as _;
use std::path::PathBuf;

use bpi_agent::config::Config;
use bpi_agent_api::v1::run_reply::Step;
use bpi_agent_api::v1::{Input, Level, RunRequest};
use bpi_agent_api::{AskError, connect};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::failure::Failure;
use bpi_program::output::{Format, print};

/// Run a container by the running agent, and wait for its evidence
#[derive(Args)]
#[command(
    long_about = "Asks the running agent to run a container under DockLock, tells on standard error how it goes, and prints where its evidence is.

The image is named by its digest and has to be in containerd already: a tag may be another image tomorrow. Exit status: that of the container; 1 when
it could not be run, or its evidence did not come."
)]
pub(crate) struct Arguments {
    /// sha256:… of the image's manifest or index
    #[arg(value_name = "DIGEST")]
    image: String,
    /// containerd's namespace [default: that of the configuration]
    #[arg(long, value_name = "NAMESPACE", default_value = "", hide_default_value = true)]
    boundary: String,
    /// The container's id [default: one is made]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// NAME=VALUE, beside what the image says
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file or folder of this host that the container can read, and where: HOST:INSIDE
    #[arg(long, value_name = "HOST:INSIDE", value_parser = read_input)]
    input: Vec<(PathBuf, PathBuf)>,
    /// The cage's profile [default: docklock's]
    #[arg(long, value_name = "PROFILE", default_value = "", hide_default_value = true)]
    profile: String,
    /// A path in the container whose content the receipt commits to
    #[arg(long, value_name = "PATH")]
    output: Vec<String>,
    /// How far to wait
    #[arg(long, value_name = "LEVEL", default_value = "final", value_parser = PossibleValuesParser::new(["seen", "packed", "kept", "included", "final"]))]
    level: String,
    /// How to print the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Program and arguments [default: what the image says]
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
}

fn read_input(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (host, inside) = text.rsplit_once(':').ok_or("it has to be HOST:INSIDE")?;
    let host = std::path::absolute(host).map_err(|error| error.to_string())?;
    Ok((host, inside.into()))
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<u8, Failure> {
    let text = |path: &PathBuf| path.display().to_string();
    let inputs = arguments.input.iter().map(|(host, inside)| Input { host: text(host), inside: text(inside) });
    let request = RunRequest {
        boundary: arguments.boundary.clone(),
        container_id: arguments.id.clone(),
        image: arguments.image.clone(),
        argv: arguments.argv.clone(),
        env: arguments.env.clone(),
        inputs: inputs.collect(),
        profile: arguments.profile.clone(),
        outputs: arguments.output.clone(),
        // The parser lets only levels pass.
        level: Level::of_word(&arguments.level).unwrap_or(Level::Final).into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Threads { source })?;
    let (mut code, mut end) = (None, serde_json::Map::new());
    // Who does not listen to how it goes has nothing to lose.
    let say = |line: &str| writeln!(std::io::stderr(), "{line}").unwrap_or_default();
    runtime.block_on(async {
        let mut client = connect(&config.socket).await?;
        let mut replies = client.raw().run(request).await.map_err(AskError::from)?.into_inner();
        while let Some(reply) = replies.message().await.map_err(AskError::from)? {
            match reply.step {
                Some(Step::Begun(begun)) => {
                    say(&format!("container {} in {}", begun.container_id, begun.boundary));
                    end.insert("boundary".into(), begun.boundary.into());
                    end.insert("containerId".into(), begun.container_id.into());
                    end.insert("stdout".into(), begun.stdout.into());
                    end.insert("stderr".into(), begun.stderr.into());
                }
                Some(Step::Unpacking(step)) => say(&format!("unpacking layer {} of {}", step.layer, step.of)),
                Some(Step::Started(started)) => say(&format!("started, process {}", started.pid)),
                Some(Step::Exited(exited)) => {
                    say(&format!("exited {}", exited.code));
                    end.insert("exitCode".into(), exited.code.into());
                    code = Some(u8::try_from(exited.code).unwrap_or(u8::MAX));
                }
                Some(Step::Receipt(reply)) => {
                    say(reply.level().word());
                    end.insert("level".into(), reply.level().word().into());
                    end.insert("seq".into(), reply.seq.into());
                    end.insert("evidence".into(), reply.evidence.into());
                }
                None => {}
            }
        }
        Ok::<_, AskError>(())
    })?;
    let text = |name: &str| end.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    match arguments.format {
        Format::Json => print(&format!("{}\n", serde_json::Value::Object(end.clone())))?,
        Format::Text => {
            print(&format!("{}\n", if text("evidence").is_empty() { text("level") } else { text("evidence") }))?
        }
    }
    if text("level") != arguments.level {
        return Err(Failure::NotReached { wanted: arguments.level.clone(), level: text("level").to_owned() });
    }
    Ok(code.unwrap_or(1))
}
