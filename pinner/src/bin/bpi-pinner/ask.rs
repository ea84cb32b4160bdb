//! Asks the running pinner over HTTP/1.0: a request, and an answer up to its end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bpi_program::api::ApiAddress;

use crate::failure::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer, at most: a thousand tenants.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The body of the answer to a request.
///
/// # Errors
/// When nobody answers, or the answer is none of the 200s.
pub(crate) fn ask(address: &ApiAddress, method: &str, path: &str) -> Result<String, Failure> {
    let failed = |source| Failure::Ask { address: address.to_string(), source };
    let text = exchange(address, method, path).map_err(failed)?;
    let malformed = || failed(io::Error::other("it does not speak HTTP"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    match status {
        200..=299 => Ok(body.to_owned()),
        _ => Err(Failure::Answer { address: address.to_string(), status, text: body.trim().to_owned() }),
    }
}

fn exchange(address: &ApiAddress, method: &str, path: &str) -> io::Result<String> {
    match address {
        ApiAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            said(stream, method, path)
        }
        ApiAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            said(stream, method, path)
        }
    }
}

fn said(mut stream: impl Read + Write, method: &str, path: &str) -> io::Result<String> {
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: pinner\r\nContent-Length: 0\r\n\r\n")?;
    stream.flush()?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
