//! The proxy: the two ways in which a request comes, and the one way in which it is judged.
//!
//! ```text
//! fields or head → Request → page
//!                          → tunnel: a place, the host's word, a socket, the answer, the relay
//! ```
//!
//! Everything that belongs to a connection lives in the future that serves it: dropped or ended, it leaves no task behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Target;
use crate::connection::{
    PIECE_BYTES_MAX, Role, close, is_orderly, lost_in_read, lost_in_write, open_control, read_streams,
};
use crate::error::MasqueError;
use crate::frame::{self, Code, Fault, Frame, Frames, Settings};
use crate::host::{DropReason, End, Event, Host, Limits, Page, Refusal};
use crate::message::{self, PROTOCOL, Request};
use crate::qpack::{self, QpackError};
use crate::relay::{Framing, Place, Table, Uplink, Way, read_datagrams, relay};

/// Fields in a head of HTTP/1.1.
const HEAD_FIELDS_MAX: usize = 64;

/// One HTTP/3 connection that is served.
struct Served {
    connection: quinn::Connection,
    host: Arc<dyn Host>,
    limits: Limits,
    tunnels: Semaphore,
    uplinks: Arc<Table<Arc<Uplink>>>,
    settings: watch::Receiver<Option<Settings>>,
}

/// Serves the requests of an HTTP/3 connection (ALPN `h3`) until it ends. Its transport is to be set by
/// [`outer_transport`](crate::outer_transport).
///
/// # Errors
/// When the peer breaks HTTP/3, for which the connection is closed, or the connection is lost otherwise than by being closed.
pub async fn serve_h3(connection: quinn::Connection, host: Arc<dyn Host>) -> Result<(), MasqueError> {
    let limits = host.limits();
    // Kept to the end: dropped, it would close the connection.
    let control = timeout(limits.request, open_control(&connection, Role::Server, limits.head_bytes));
    let _control = control.await.map_err(|_| timed_out(limits.request))??;
    let (settings_seen, settings) = watch::channel(None);
    let served = Arc::new(Served {
        connection: connection.clone(),
        host: Arc::clone(&host),
        limits,
        tunnels: Semaphore::new(limits.tunnels),
        uplinks: Arc::default(),
        settings,
    });
    let to_uplink = |uplink: Option<Arc<Uplink>>, datagram: Bytes| match uplink {
        Some(uplink) => uplink.take(datagram),
        None => host.count(Event::Dropped(DropReason::NoTunnel)),
    };
    let error = tokio::select! {
        error = read_streams(&connection, Role::Server, settings_seen) => error,
        error = accept(&served) => error,
        error = read_datagrams(&connection, &served.uplinks, to_uplink) => error,
    };
    close(&connection, &error);
    match error {
        MasqueError::Lost(lost) if is_orderly(&lost) => Ok(()),
        error => Err(error),
    }
}

/// Takes requests until the connection ends or one of them breaks it.
async fn accept(served: &Arc<Served>) -> MasqueError {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = served.connection.accept_bi() => match accepted {
                Ok((mut send, mut receive)) if requests.len() >= served.limits.requests => {
                    let _ = send.reset(Code::RequestRejected.into());
                    let _ = receive.stop(Code::RequestRejected.into());
                }
                Ok((send, receive)) => {
                    let served = Arc::clone(served);
                    requests.spawn(async move { served.answer(send, receive).await });
                }
                Err(lost) => return MasqueError::Lost(lost),
            },
            Some(ended) = requests.join_next() => match ended {
                Ok(Err(error @ (MasqueError::Fault { .. } | MasqueError::Lost(_)))) => return error,
                // A stream that failed takes nothing else with it.
                Ok(_) => {}
                Err(ended) => tracing::error!(%ended, "a request's task has ended early"),
            },
        }
    }
}

impl Served {
    async fn answer(&self, mut send: SendStream, mut receive: RecvStream) -> Result<(), MasqueError> {
        let read = timeout(self.limits.request, read_request(&mut receive, self.limits.head_bytes));
        let (request, early) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(MasqueError::Reset)) => {
                let _ = send.reset(Code::RequestIncomplete.into());
                return Ok(());
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let _ = send.reset(Code::RequestIncomplete.into());
                let _ = receive.stop(Code::RequestIncomplete.into());
                return Ok(());
            }
        };
        let refusal = match request {
            Ok(Request::Page { path, head }) => match self.host.page(&path) {
                Some(page) => {
                    self.host.count(Event::Shown);
                    let _ = receive.stop(Code::None.into());
                    return self.show(&mut send, &page, head).await;
                }
                None => Refusal::NotFound,
            },
            Ok(Request::Tunnel(target)) => match self.open(&target).await {
                Ok(uplink) => return self.tunnel(send, receive, early, uplink).await,
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        self.host.count(Event::Refused(refusal));
        let code = if refusal == Refusal::Malformed { Code::Message } else { Code::None };
        let _ = receive.stop(code.into());
        self.refuse(&mut send, refusal).await
    }

    /// A place, the host's word and a socket.
    async fn open(&self, target: &Target) -> Result<Opened<'_>, Refusal> {
        let place = self.tunnels.try_acquire().map_err(|_| Refusal::TooMany)?;
        let uplink = connect(&self.host, target, self.limits.request).await?;
        Ok(Opened { _place: place, uplink: Arc::new(uplink) })
    }

    async fn tunnel(
        &self,
        mut send: SendStream,
        mut receive: RecvStream,
        early: Bytes,
        opened: Opened<'_>,
    ) -> Result<(), MasqueError> {
        let quarter = receive.id().index();
        // Before the answer, so that no datagram that follows it is without a tunnel.
        let _place = Place::take(&self.uplinks, quarter, Arc::clone(&opened.uplink));
        let way = self.way(quarter).await;
        let head = [(":status", "200"), ("capsule-protocol", "?1")];
        self.write(&mut send, &frame::frame(frame::HEADERS, &qpack::encode(&head))).await?;
        self.host.count(Event::Opened);
        let ended = Ended { host: &self.host, end: End::Lost };
        let (end, error) =
            relay(&mut receive, &mut send, early, Framing::Data, &opened.uplink, &way, &self.limits).await;
        ended.with(end);
        match (end, error) {
            (End::Fault, Some(error)) => {
                let _ = send.reset(Code::Datagram.into());
                let _ = receive.stop(Code::Datagram.into());
                return Err(error);
            }
            (End::Lost, Some(error)) => return Err(error),
            _ => {
                let _ = send.finish();
                let _ = receive.stop(Code::None.into());
            }
        }
        Ok(())
    }

    /// QUIC datagrams if the client takes them, which it says in its settings; otherwise capsules (RFC 9297, section 2.1.1 and 3.5).
    async fn way(&self, quarter: u64) -> Way {
        let mut settings = self.settings.clone();
        let known = timeout(self.limits.request, settings.wait_for(Option::is_some)).await;
        let takes = matches!(known, Ok(Ok(settings)) if settings.is_some_and(|settings| settings.datagrams));
        match takes && self.connection.max_datagram_size().is_some() {
            true => Way::Datagrams { connection: self.connection.clone(), quarter },
            false => Way::Capsules,
        }
    }

    async fn show(&self, send: &mut SendStream, page: &Page, head: bool) -> Result<(), MasqueError> {
        let length = page.body.len().to_string();
        let fields = [
            (":status", "200"),
            ("content-type", page.content_type),
            ("content-length", &length),
            ("cache-control", "no-store"),
        ];
        let mut bytes = frame::frame(frame::HEADERS, &qpack::encode(&fields));
        if !head {
            bytes.extend(frame::frame(frame::DATA, &page.body));
        }
        self.write(send, &bytes).await?;
        let _ = send.finish();
        Ok(())
    }

    async fn refuse(&self, send: &mut SendStream, refusal: Refusal) -> Result<(), MasqueError> {
        let status = refusal.status().to_string();
        let more = message::fields_of(refusal);
        let mut fields = vec![(":status", status.as_str()), ("content-length", "0")];
        fields.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
        self.write(send, &frame::frame(frame::HEADERS, &qpack::encode(&fields))).await?;
        let _ = send.finish();
        Ok(())
    }

    /// Writes an answer; a client that does not take it loses the stream.
    async fn write(&self, send: &mut SendStream, bytes: &[u8]) -> Result<(), MasqueError> {
        match timeout(self.limits.request, send.write_all(bytes)).await {
            Ok(written) => written.map_err(lost_in_write),
            Err(_) => {
                let _ = send.reset(Code::RequestCancelled.into());
                Err(timed_out(self.limits.request))
            }
        }
    }
}

struct Opened<'a> {
    _place: tokio::sync::SemaphorePermit<'a>,
    uplink: Arc<Uplink>,
}

/// Counts the end of a tunnel, also of one whose task is dropped.
struct Ended<'a> {
    host: &'a Arc<dyn Host>,
    end: End,
}

impl Ended<'_> {
    fn with(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.host.count(Event::Ended(self.end));
    }
}

fn timed_out(limit: Duration) -> MasqueError {
    MasqueError::TimedOut { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
}

async fn connect(host: &Arc<dyn Host>, target: &Target, limit: Duration) -> Result<Uplink, Refusal> {
    let address = timeout(limit, host.authorize(target)).await.map_err(|_| Refusal::TimedOut)??;
    Uplink::connect(address, Arc::clone(host)).await.map_err(|error| {
        tracing::debug!(%address, %error, "no socket for a target");
        Refusal::Unreachable
    })
}

/// The request at the start of a stream, and what came behind it. The refusal inside is for the client; the error ends the connection.
async fn read_request(
    receive: &mut RecvStream,
    head_bytes: usize,
) -> Result<(Result<Request, Refusal>, Bytes), MasqueError> {
    let mut frames = Frames::new(head_bytes);
    // Frames without a meaning may come first, but not for ever.
    let mut budget = 2 * head_bytes + PIECE_BYTES_MAX;
    loop {
        let piece = receive.read_chunk(PIECE_BYTES_MAX, true).await.map_err(lost_in_read)?;
        let Some(mut input) = piece.map(|piece| piece.bytes) else {
            frames.end()?;
            return Err(MasqueError::Reset);
        };
        budget = match budget.checked_sub(input.len()) {
            Some(left) => left,
            None => return Ok((Err(Refusal::HeadTooLarge), input)),
        };
        match frames.next(&mut input)? {
            Some(Frame::Headers(section)) => {
                let request = match qpack::decode(&section, head_bytes) {
                    Ok(fields) => message::of_fields(&fields),
                    Err(QpackError::TooLarge { .. }) => Err(Refusal::HeadTooLarge),
                    Err(error) => {
                        tracing::debug!(%error, "a field section cannot be read");
                        return Err(Fault::new(Code::QpackDecompression, "a field section cannot be read").into());
                    }
                };
                return Ok((request, input));
            }
            Some(Frame::HeadersTooLong) => return Ok((Err(Refusal::HeadTooLarge), input)),
            Some(_) => return Err(Fault::new(Code::FrameUnexpected, "a request does not begin with its fields").into()),
            None => {}
        }
    }
}

/// Serves one request of HTTP/1.1 on `stream`, a connection of TLS 1.3 (ALPN `http/1.1`): a page, or a tunnel until it ends.
///
/// # Errors
/// When the client breaks a protocol, or the stream fails before the request was answered.
pub async fn serve_h1<S>(mut stream: S, host: Arc<dyn Host>) -> Result<(), MasqueError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = host.limits();
    let read = timeout(limits.request, read_head(&mut stream, limits.head_bytes));
    let (request, early) = read.await.map_err(|_| timed_out(limits.request))??;
    let refusal = match request {
        Ok(Request::Page { path, head }) => match host.page(&path) {
            Some(page) => {
                host.count(Event::Shown);
                let length = page.body.len().to_string();
                let fields = [
                    ("Content-Type", page.content_type),
                    ("Content-Length", &length),
                    ("Cache-Control", "no-store"),
                    ("Connection", "close"),
                ];
                let mut answer = head_of(200, &fields);
                if !head {
                    answer.extend_from_slice(&page.body);
                }
                return finish(&mut stream, &answer, limits.request).await;
            }
            None => Refusal::NotFound,
        },
        Ok(Request::Tunnel(_)) if limits.tunnels == 0 => Refusal::TooMany,
        Ok(Request::Tunnel(target)) => match connect(&host, &target, limits.request).await {
            Ok(uplink) => return tunnel_h1(stream, early, uplink, &host, &limits).await,
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    host.count(Event::Refused(refusal));
    let more = message::fields_of(refusal);
    let mut fields = vec![("Content-Length", "0"), ("Connection", "close")];
    fields.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
    finish(&mut stream, &head_of(refusal.status(), &fields), limits.request).await
}

async fn tunnel_h1<S>(
    mut stream: S,
    early: Bytes,
    uplink: Uplink,
    host: &Arc<dyn Host>,
    limits: &Limits,
) -> Result<(), MasqueError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let fields = [("Connection", "Upgrade"), ("Upgrade", PROTOCOL), ("Capsule-Protocol", "?1")];
    write(&mut stream, &head_of(101, &fields), limits.request).await?;
    host.count(Event::Opened);
    let ended = Ended { host, end: End::Lost };
    let (reader, mut writer) = tokio::io::split(stream);
    let (end, error) = relay(reader, &mut writer, early, Framing::Bare, &uplink, &Way::Capsules, limits).await;
    ended.with(end);
    // Ends TLS in order; if the client takes nothing any more, without it.
    let _ = timeout(limits.request, writer.shutdown()).await;
    match (end, error) {
        (End::Fault, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

/// The head of a request and what came behind it.
async fn read_head<S>(stream: &mut S, head_bytes: usize) -> Result<(Result<Request, Refusal>, Bytes), MasqueError>
where
    S: AsyncRead + Unpin,
{
    let mut input = BytesMut::new();
    loop {
        if input.len() >= head_bytes {
            return Ok((Err(Refusal::HeadTooLarge), Bytes::new()));
        }
        let read = stream.read_buf(&mut bytes::BufMut::limit(&mut input, head_bytes)).await;
        match read {
            Ok(0) => return Err(MasqueError::Closed),
            Ok(_) => {}
            Err(error) => return Err(MasqueError::Stream { doing: "read", kind: error.kind() }),
        }
        let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let (request, bytes) = match request.parse(&input) {
            Ok(httparse::Status::Partial) => continue,
            Ok(httparse::Status::Complete(bytes)) => (message::of_head(&request), bytes),
            Err(httparse::Error::TooManyHeaders) => (Err(Refusal::HeadTooLarge), input.len()),
            Err(_) => (Err(Refusal::Malformed), input.len()),
        };
        return Ok((request, input.split_off(bytes).freeze()));
    }
}

fn head_of(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} {}\r\n{fields}\r\n", message::phrase(status)).into_bytes()
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], limit: Duration) -> Result<(), MasqueError> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let written = timeout(limit, written).await.map_err(|_| timed_out(limit))?;
    written.map_err(|error| MasqueError::Stream { doing: "written", kind: error.kind() })
}

/// Writes the last of a connection.
async fn finish<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], limit: Duration) -> Result<(), MasqueError> {
    write(stream, bytes, limit).await?;
    let _ = timeout(limit, stream.shutdown()).await;
    Ok(())
}
