//! `bpi-validator status`: what the running node says of itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bpi_validator::node::config::{ApiAddress, Config};
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{Format, print};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Ask the running node how it does
#[derive(Args)]
pub(crate) struct Arguments {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let address = config.api.to_string();
    let no_answer = |reason: String| Failure::NoAnswer { address: address.clone(), reason };
    let body = get(config, "/v1/status").map_err(|error| no_answer(error.to_string()))?;
    if arguments.format == Format::Json {
        return Ok(print(&format!("{body}\n"))?);
    }
    let said: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&body).map_err(|error| no_answer(error.to_string()))?;
    Ok(said.iter().try_for_each(|(name, value)| match value.as_str() {
        Some(text) => print(&format!("{name:<12} {}\n", bpi_program::output::plain(text))),
        None if value.is_null() => print(&format!("{name:<12} none\n")),
        None => print(&format!("{name:<12} {value}\n")),
    })?)
}

/// The body of an answer, over HTTP/1.0: it ends with the connection.
fn get(config: &Config, path: &str) -> std::io::Result<String> {
    match &config.api {
        ApiAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, path)
        }
        ApiAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, path)
        }
    }
}

fn ask(mut stream: impl Read + Write, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other("the answer is none of a validator")),
    }
}
