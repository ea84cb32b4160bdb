//! The client: an HTTP/3 connection that carries tunnels, or a connection of TLS that becomes one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::Target;
use crate::connection::{PIECE_BYTES_MAX, Role, close, lost_in_read, lost_in_write, open_control, read_streams};
use crate::error::MasqueError;
use crate::frame::{self, Code, Fault, Frame, Frames, Settings};
use crate::message::PROTOCOL;
use crate::qpack::{self, Field};
use crate::relay::{Framing, Place, Table, Way, read_capsules, read_datagrams, write_capsules};
use crate::tunnel::{Shared, Tunnel};

/// Longest authority: a name, brackets or a port.
pub(crate) const AUTHORITY_BYTES_MAX: usize = crate::HOST_BYTES_MAX + 8;
/// How long the settings and the answer are waited for, together. Longer than a proxy may take to resolve a name.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Bytes of the fields of an answer.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of an answer of HTTP/1.1.
const HEAD_FIELDS_MAX: usize = 64;
/// Answers that say that another comes.
const INTERIM_MAX: usize = 8;

/// An HTTP/3 connection to a proxy. It is closed when this and all tunnels in it are dropped.
#[derive(Clone)]
pub struct Client(Arc<Connected>);

struct Connected {
    connection: quinn::Connection,
    tunnels: Arc<Table<Arc<Shared>>>,
    settings: watch::Receiver<Option<Settings>>,
    driver: AbortHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        // Without the driver there is no control stream, so nothing more could be asked.
        self.connection.close(Code::None.into(), b"");
        self.driver.abort();
    }
}

impl Client {
    /// Begins HTTP/3 on `connection` (ALPN `h3`), whose transport is to be set by [`outer_transport`](crate::outer_transport).
    ///
    /// # Errors
    /// When the connection ends meanwhile.
    pub async fn new(connection: quinn::Connection) -> Result<Self, MasqueError> {
        let control = timeout(ANSWER_TIME, open_control(&connection, Role::Client, HEAD_BYTES_MAX));
        let control = control.await.map_err(|_| timed_out())??;
        let tunnels: Arc<Table<Arc<Shared>>> = Arc::default();
        let (seen, settings) = watch::channel(None);
        let driver = tokio::spawn(drive(connection.clone(), control, Arc::clone(&tunnels), seen)).abort_handle();
        Ok(Self(Arc::new(Connected { connection, tunnels, settings, driver })))
    }

    /// Asks the proxy, which is `authority`, for a tunnel to `target`.
    ///
    /// # Errors
    /// [`MasqueError::Refused`] with the status when the proxy refuses; another when there is no answer, none that is well-formed, or
    /// no connection.
    pub async fn open(&self, authority: &str, target: &Target) -> Result<Tunnel, MasqueError> {
        check_authority(authority)?;
        timeout(ANSWER_TIME, self.ask(authority, target)).await.map_err(|_| timed_out())?
    }

    async fn ask(&self, authority: &str, target: &Target) -> Result<Tunnel, MasqueError> {
        let connection = &self.0.connection;
        let known =
            self.0.settings.clone().wait_for(Option::is_some).await.map(|settings| settings.unwrap_or_default());
        let Ok(settings) = known else {
            // The driver is gone, and with it the connection.
            return Err(connection.close_reason().map_or(MasqueError::Closed, MasqueError::Lost));
        };
        if !settings.connect_protocol {
            return Err(MasqueError::NoProxy);
        }
        let (mut send, mut receive) = connection.open_bi().await.map_err(MasqueError::Lost)?;
        let quarter = send.id().index();
        let way = match settings.datagrams && connection.max_datagram_size().is_some() {
            true => Way::Datagrams { connection: connection.clone(), quarter },
            false => Way::Capsules,
        };
        let shared = Arc::new(Shared::new(way.clone()));
        // Before the request, so that no datagram that follows the answer is without a tunnel.
        let place = Place::take(&self.0.tunnels, quarter, Arc::clone(&shared));
        let path = target.to_path();
        let fields = [
            (":method", "CONNECT"),
            (":protocol", PROTOCOL),
            (":scheme", "https"),
            (":authority", authority),
            (":path", &path),
            ("capsule-protocol", "?1"),
        ];
        send.write_all(&frame::frame(frame::HEADERS, &qpack::encode(&fields))).await.map_err(lost_in_write)?;
        let answer = read_answer(&mut receive).await;
        if let Err(error @ MasqueError::Fault { .. }) = &answer {
            close(connection, error);
        }
        let early = answer?;
        let task = tokio::spawn(carry_h3(Arc::clone(&shared), way, send, receive, early, connection.clone(), place));
        Ok(Tunnel::new(shared, target, task.abort_handle(), Some(self.clone())))
    }
}

/// Reads what belongs to no request until the connection ends, and then ends its tunnels.
async fn drive(
    connection: quinn::Connection,
    _control: SendStream,
    tunnels: Arc<Table<Arc<Shared>>>,
    settings: watch::Sender<Option<Settings>>,
) {
    let take = |tunnel: Option<Arc<Shared>>, datagram: Bytes| {
        if let Some(tunnel) = tunnel
            && let Err(error) = tunnel.take(datagram)
        {
            tunnel.end(error);
        }
    };
    let error = tokio::select! {
        error = read_streams(&connection, Role::Client, settings) => error,
        error = read_datagrams(&connection, &tunnels, take) => error,
        accepted = connection.accept_bi() => match accepted {
            // RFC 9114, section 6.1.
            Ok(_) => Fault::new(Code::StreamCreation, "a server has opened a stream for a request").into(),
            Err(lost) => MasqueError::Lost(lost),
        },
    };
    close(&connection, &error);
    let left: Vec<_> = tunnels.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for tunnel in left {
        tunnel.end(error.clone());
    }
}

async fn carry_h3(
    shared: Arc<Shared>,
    way: Way,
    mut send: SendStream,
    mut receive: RecvStream,
    early: Bytes,
    connection: quinn::Connection,
    _place: Place<Arc<Shared>>,
) {
    let out = async {
        match &way {
            Way::Datagrams { connection, .. } => shared.pump(connection).await,
            Way::Capsules => write_capsules(&shared.outgoing, &mut send, Framing::Data).await,
        }
    };
    let error = tokio::select! {
        read = read_capsules(&mut receive, early, Framing::Data, |datagram| shared.take(datagram)) => {
            read.err().unwrap_or(MasqueError::Closed)
        }
        error = out => error,
    };
    shared.end(error);
    // The first reason counts: it may be one of the connection's reader.
    match shared.reason() {
        Some(error @ MasqueError::Fault { .. }) => close(&connection, &error),
        Some(MasqueError::Capsule(_) | MasqueError::Datagram) => {
            let _ = send.reset(Code::Datagram.into());
            let _ = receive.stop(Code::Datagram.into());
        }
        _ => {}
    }
}

/// Reads the answer to a request; `Ok`: it is a 2xx, and this came behind it.
async fn read_answer(receive: &mut RecvStream) -> Result<Bytes, MasqueError> {
    let mut frames = Frames::new(HEAD_BYTES_MAX);
    let mut input = Bytes::new();
    let mut interim = 0;
    let mut budget = 4 * HEAD_BYTES_MAX;
    loop {
        match frames.next(&mut input)? {
            Some(Frame::Headers(section)) => {
                let fields = qpack::decode(&section, HEAD_BYTES_MAX).map_err(|error| match error {
                    qpack::QpackError::TooLarge { .. } => MasqueError::Answer { what: "its fields are too large" },
                    _ => Fault::new(Code::QpackDecompression, "a field section cannot be read").into(),
                })?;
                match judge(&fields)? {
                    Answer::Interim if interim < INTERIM_MAX => interim += 1,
                    Answer::Interim => return Err(MasqueError::Answer { what: "it never comes to an end" }),
                    Answer::Accepted => return Ok(input),
                }
            }
            Some(Frame::HeadersTooLong) => return Err(MasqueError::Answer { what: "its fields are too large" }),
            Some(_) => return Err(Fault::new(Code::FrameUnexpected, "an answer does not begin with its fields").into()),
            None => {
                let piece = receive.read_chunk(PIECE_BYTES_MAX, true).await.map_err(lost_in_read)?;
                input = piece.ok_or(MasqueError::Reset)?.bytes;
                let left = usize::checked_sub(budget, input.len());
                budget = left.ok_or(MasqueError::Answer { what: "its fields never come" })?;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Interim,
}

/// What the fields of an answer say.
///
/// # Errors
/// When they refuse, or are no answer.
pub(crate) fn judge(fields: &[Field]) -> Result<Answer, MasqueError> {
    let mut statuses = fields.iter().filter(|field| field.name == b":status");
    let status = match (statuses.next(), statuses.next()) {
        (Some(field), None) => str::from_utf8(&field.value).ok().filter(|text| text.len() == 3),
        _ => None,
    };
    let status: Option<u16> = status.and_then(|text| text.parse().ok());
    let proxy_status = fields.iter().find(|field| field.name == b"proxy-status").map(|field| field.value.as_slice());
    match status {
        // There is no switching in HTTP/3 (RFC 9114, section 4.5).
        Some(101) | None | Some(0..=99) => Err(MasqueError::Answer { what: "it has no status" }),
        Some(100..=199) => Ok(Answer::Interim),
        Some(200..=299) => Ok(Answer::Accepted),
        Some(status) => Err(MasqueError::Refused { status, error: error_of(proxy_status) }),
    }
}

/// The error that a Proxy-Status field names (RFC 9209, section 2.1.1).
fn error_of(proxy_status: Option<&[u8]>) -> Option<String> {
    let parameter =
        proxy_status?.split(|byte| *byte == b';').find_map(|part| part.trim_ascii().strip_prefix(b"error="))?;
    let end = parameter.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_' && *byte != b'-');
    let error = &parameter[..end.unwrap_or(parameter.len()).min(64)];
    (!error.is_empty()).then(|| String::from_utf8_lossy(error).into_owned())
}

/// An authority is written into a head: nothing may end a line.
fn check_authority(authority: &str) -> Result<(), MasqueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:%".contains(&byte);
    match (1..=AUTHORITY_BYTES_MAX).contains(&authority.len()) && authority.bytes().all(allowed) {
        true => Ok(()),
        false => Err(MasqueError::Authority { bytes: authority.len() }),
    }
}

fn timed_out() -> MasqueError {
    MasqueError::TimedOut { limit_ms: ANSWER_TIME.as_millis() as u64 }
}

impl Tunnel {
    /// Opens the only tunnel of `connection`; for more of them there is [`Client`].
    ///
    /// # Errors
    /// As [`Client::new`] and [`Client::open`].
    pub async fn open_h3(connection: quinn::Connection, authority: &str, target: &Target) -> Result<Self, MasqueError> {
        Client::new(connection).await?.open(authority, target).await
    }

    /// Makes `stream`, a connection of TLS 1.3 (ALPN `http/1.1`) to the proxy that is `authority`, a tunnel to `target`
    /// (RFC 9298, section 3.2).
    ///
    /// # Errors
    /// [`MasqueError::Refused`] with the status when the proxy refuses; another when there is no answer, none that is well-formed, or
    /// no connection.
    pub async fn open_h1<S>(mut stream: S, authority: &str, target: &Target) -> Result<Self, MasqueError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        check_authority(authority)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\nCapsule-Protocol: ?1\r\n\r\n",
            target.to_path(),
        );
        let asked = async {
            let failed = |error: std::io::Error| MasqueError::Stream { doing: "written", kind: error.kind() };
            stream.write_all(request.as_bytes()).await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
            read_head(&mut stream).await
        };
        let early = timeout(ANSWER_TIME, asked).await.map_err(|_| timed_out())??;
        let shared = Arc::new(Shared::new(Way::Capsules));
        let task = tokio::spawn(carry_h1(Arc::clone(&shared), stream, early));
        Ok(Self::new(shared, target, task.abort_handle(), None))
    }
}

async fn carry_h1<S: AsyncRead + AsyncWrite + Unpin>(shared: Arc<Shared>, stream: S, early: Bytes) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let error = tokio::select! {
        read = read_capsules(&mut reader, early, Framing::Bare, |datagram| shared.take(datagram)) => {
            read.err().unwrap_or(MasqueError::Closed)
        }
        error = write_capsules(&shared.outgoing, &mut writer, Framing::Bare) => error,
    };
    shared.end(error);
}

/// Reads the answer of HTTP/1.1; `Ok`: it is a 101 to this protocol, and this came behind it.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Bytes, MasqueError> {
    let mut input = BytesMut::new();
    loop {
        if input.len() >= HEAD_BYTES_MAX {
            return Err(MasqueError::Answer { what: "its fields are too large" });
        }
        match stream.read_buf(&mut (&mut input).limit(HEAD_BYTES_MAX)).await {
            Ok(0) => return Err(MasqueError::Closed),
            Ok(_) => {}
            Err(error) => return Err(MasqueError::Stream { doing: "read", kind: error.kind() }),
        }
        let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let bytes = match answer.parse(&input) {
            Ok(httparse::Status::Partial) => continue,
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Err(_) => return Err(MasqueError::Answer { what: "it is none of HTTP/1.1" }),
        };
        let value = |name: &str| {
            answer
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value.trim_ascii())
        };
        return match answer.code {
            Some(101) if value("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(PROTOCOL.as_bytes())) => {
                Ok(input.split_off(bytes).freeze())
            }
            Some(101) | None => Err(MasqueError::Answer { what: "it switches to another protocol" }),
            // A 1xx that is not the one asked for does not come to a request of this kind; 2xx has no meaning to it.
            Some(status) => Err(MasqueError::Refused { status, error: error_of(value("proxy-status")) }),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fields: &[(&str, &str)]) -> Result<Answer, MasqueError> {
        let field =
            |(name, value): &(&str, &str)| Field { name: name.as_bytes().into(), value: value.as_bytes().into() };
        judge(&fields.iter().map(field).collect::<Vec<_>>())
    }

    #[test]
    fn a_refusal_tells_its_status_and_its_error() {
        assert_eq!(judged(&[(":status", "200")]).ok(), Some(Answer::Accepted));
        assert_eq!(judged(&[(":status", "103")]).ok(), Some(Answer::Interim));
        let refused = judged(&[(":status", "502"), ("proxy-status", "a.example; error=dns_error; details=\"x\"")]);
        let Err(MasqueError::Refused { status: 502, error }) = refused else { panic!("{refused:?}") };
        assert_eq!(error.as_deref(), Some("dns_error"));
        for status in ["", "20", "2000", "101", "abc", "099"] {
            assert!(matches!(judged(&[(":status", status)]), Err(MasqueError::Answer { .. })), "{status}");
        }
    }

    #[test]
    fn an_authority_cannot_end_a_line() {
        for authority in ["", "a\r\nb", "a b", "a/b", "ä", &"a".repeat(300)] {
            assert!(check_authority(authority).is_err(), "{authority}");
        }
        for authority in ["proxy.example", "proxy.example:443", "[2001:db8::1]:443"] {
            assert!(check_authority(authority).is_ok(), "{authority}");
        }
    }
}
