//! What a request asks for, whether it came as fields of HTTP/3 or as a head of HTTP/1.1, and what the answer says.

use crate::host::Refusal;
use crate::qpack::Field;
use crate::target::{PATH_PREFIX, Target};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A tunnel.
    Tunnel(Target),
    /// The page at a path; without its content after HEAD.
    Page { path: String, head: bool },
}

/// The token of this protocol in `:protocol` and Upgrade (RFC 9298, section 8.1).
pub(crate) const PROTOCOL: &str = "connect-udp";
/// Fields that a request of the capsule protocol may not have (RFC 9297, section 3.2).
const NOT_WITH_CAPSULES: [&[u8]; 3] = [b"content-length", b"content-type", b"transfer-encoding"];

/// What the `fields` of HTTP/3 ask for (RFC 9114, section 4.3.1; RFC 9220; RFC 9298, section 3.4).
///
/// # Errors
/// [`Refusal::Malformed`] when they are no request at all, another when they ask for what is not offered.
pub(crate) fn of_fields(fields: &[Field]) -> Result<Request, Refusal> {
    let [mut method, mut scheme, mut authority, mut path, mut protocol] = [None; 5];
    let mut pseudo_may_come = true;
    let mut host = None;
    for Field { name, value } in fields {
        if !is_value(value) {
            return Err(Refusal::Malformed);
        }
        let pseudo = match name.as_slice() {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":authority" => &mut authority,
            b":path" => &mut path,
            b":protocol" => &mut protocol,
            // Fields of the connection have no place in HTTP/3 (RFC 9114, section 4.2).
            b"connection" | b"upgrade" | b"transfer-encoding" | b"keep-alive" | b"proxy-connection" => {
                return Err(Refusal::Malformed);
            }
            name if is_name(name) => {
                pseudo_may_come = false;
                if name == b"host" && host.replace(value.as_slice()).is_some() {
                    return Err(Refusal::Malformed);
                }
                continue;
            }
            _ => return Err(Refusal::Malformed),
        };
        if !pseudo_may_come || value.is_empty() || pseudo.replace(value.as_slice()).is_some() {
            return Err(Refusal::Malformed);
        }
    }
    if let (Some(host), Some(authority)) = (host, authority)
        && host != authority
    {
        return Err(Refusal::Malformed);
    }
    let (method, known) = (method.ok_or(Refusal::Malformed)?, authority.or(host).is_some());
    match (method, protocol) {
        // A plain CONNECT: a tunnel of TCP.
        (b"CONNECT", None) => Err(Refusal::NotImplemented),
        (b"CONNECT", Some(protocol)) => {
            if scheme != Some(b"https") || !known {
                return Err(Refusal::Malformed);
            }
            if protocol != PROTOCOL.as_bytes() {
                return Err(Refusal::NotImplemented);
            }
            if fields.iter().any(|field| NOT_WITH_CAPSULES.contains(&field.name.as_slice())) {
                return Err(Refusal::Malformed);
            }
            tunnel(text(path)?)
        }
        (_, Some(_)) => Err(Refusal::Malformed),
        (b"GET" | b"HEAD", None) if scheme.is_some() && known => {
            Ok(Request::Page { path: text(path)?.to_owned(), head: method == b"HEAD" })
        }
        (b"GET" | b"HEAD", None) => Err(Refusal::Malformed),
        _ => Err(Refusal::Method),
    }
}

/// What a head of HTTP/1.1 asks for (RFC 9298, section 3.2).
///
/// # Errors
/// As [`of_fields`].
pub(crate) fn of_head(request: &httparse::Request<'_, '_>) -> Result<Request, Refusal> {
    let (Some(method), Some(path), Some(1)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed);
    };
    let values = |name: &'static str| {
        request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let lists = |name, token: &str| {
        values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    if values("host").count() != 1 || values("host").any(<[u8]>::is_empty) {
        return Err(Refusal::Malformed);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Refusal::Method);
    }
    // With a body the request would not end where the head does.
    if values("transfer-encoding").next().is_some() || values("content-length").any(|length| length != b"0") {
        return Err(Refusal::Malformed);
    }
    match values("upgrade").next().is_some() {
        // Any other upgrade may be ignored (RFC 9110, section 7.8): what is at the path is shown.
        true if path.starts_with(PATH_PREFIX) => {
            let asked = lists("upgrade", PROTOCOL) && lists("connection", "upgrade") && method == "GET";
            let capsules = NOT_WITH_CAPSULES
                .iter()
                .all(|name| !request.headers.iter().any(|header| header.name.as_bytes().eq_ignore_ascii_case(name)));
            if asked && capsules { tunnel(path) } else { Err(Refusal::Malformed) }
        }
        _ => Ok(Request::Page { path: path.to_owned(), head: method == "HEAD" }),
    }
}

fn tunnel(path: &str) -> Result<Request, Refusal> {
    if !path.starts_with(PATH_PREFIX) {
        return Err(Refusal::NotFound);
    }
    Target::from_path(path).map(Request::Tunnel).map_err(|_| Refusal::Malformed)
}

/// A path: ASCII that begins with a slash.
fn text(path: Option<&[u8]>) -> Result<&str, Refusal> {
    let path = path.filter(|path| path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic));
    path.and_then(|path| str::from_utf8(path).ok()).ok_or(Refusal::Malformed)
}

/// A field's name: a token in lower case (RFC 9114, section 4.2).
fn is_name(name: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

/// A field's value (RFC 9110, section 5.5).
fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// The fields that tell of a refusal besides the status.
pub(crate) fn fields_of(refusal: Refusal) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(error) = refusal.proxy_error() {
        fields.push(("proxy-status", format!("bpi-masque; error={error}")));
    }
    match refusal {
        Refusal::Method => fields.push(("allow", "GET, HEAD, CONNECT".to_owned())),
        // The field must be there (RFC 9110, section 15.5.8), and no scheme is registered for certificates.
        Refusal::Unauthenticated => fields.push(("proxy-authenticate", "Client-Certificate".to_owned())),
        _ => {}
    }
    fields
}

/// The phrase beside a status, which means nothing to anyone (RFC 9112, section 4).
pub(crate) fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TUNNEL: [(&str, &str); 6] = [
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", "proxy.example"),
        (":path", "/.well-known/masque/udp/192.0.2.6/443/"),
        ("capsule-protocol", "?1"),
    ];

    fn judged(fields: &[(&str, &str)]) -> Result<Request, Refusal> {
        let field =
            |(name, value): &(&str, &str)| Field { name: name.as_bytes().into(), value: value.as_bytes().into() };
        of_fields(&fields.iter().map(field).collect::<Vec<_>>())
    }

    fn with(name: &str, value: &'static str) -> Result<Request, Refusal> {
        judged(&TUNNEL.map(|(known, old)| (known, if known == name { value } else { old })))
    }

    #[test]
    fn an_extended_connect_needs_all_its_parts() {
        assert!(matches!(judged(&TUNNEL), Ok(Request::Tunnel(_))));
        for missing in [":method", ":scheme", ":authority", ":path"] {
            let rest: Vec<_> = TUNNEL.into_iter().filter(|field| field.0 != missing).collect();
            assert_eq!(judged(&rest), Err(Refusal::Malformed), "{missing}");
            assert_eq!(with(missing, ""), Err(Refusal::Malformed), "{missing}");
        }
        assert_eq!(judged(&[&TUNNEL[..1], &TUNNEL[2..]].concat()), Err(Refusal::NotImplemented));
        assert_eq!(with(":protocol", "connect-ip"), Err(Refusal::NotImplemented));
        assert_eq!(with(":method", "GET"), Err(Refusal::Malformed));
        assert_eq!(with(":scheme", "http"), Err(Refusal::Malformed));
        assert_eq!(with(":path", "/elsewhere/192.0.2.6/443/"), Err(Refusal::NotFound));
        assert_eq!(with(":path", "/.well-known/masque/udp/192.0.2.6/0/"), Err(Refusal::Malformed));
        for more in [
            (":path", "/"),
            ("content-length", "0"),
            ("Upper", "x"),
            ("connection", "close"),
            ("x", " y"),
            (":status", "200"),
        ] {
            assert_eq!(judged(&[&TUNNEL[..], &[more]].concat()), Err(Refusal::Malformed), "{more:?}");
        }
    }

    #[test]
    fn pages_are_only_read() {
        let page = |method| {
            judged(&[(":method", method), (":scheme", "https"), (":path", "/status"), ("host", "proxy.example")])
        };
        assert_eq!(page("GET"), Ok(Request::Page { path: "/status".to_owned(), head: false }));
        assert_eq!(page("HEAD"), Ok(Request::Page { path: "/status".to_owned(), head: true }));
        assert_eq!(page("POST"), Err(Refusal::Method));
    }

    fn head(text: &str) -> Result<Request, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(text.as_bytes()).unwrap().is_complete());
        of_head(&request)
    }

    #[test]
    fn an_upgrade_needs_all_its_parts() {
        let path = "/.well-known/masque/udp/192.0.2.6/443/";
        let all = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: connect-udp\r\n\r\n"
        );
        assert!(matches!(head(&all), Ok(Request::Tunnel(_))));
        for (old, new, refusal) in [
            ("Host: a\r\n", "", Refusal::Malformed),
            ("Host: a\r\n", "Host: a\r\nHost: b\r\n", Refusal::Malformed),
            ("Host: a\r\n", "Host: a\r\nContent-Length: 4\r\n", Refusal::Malformed),
            ("Host: a\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n", Refusal::Malformed),
            (", Upgrade", "", Refusal::Malformed),
            ("connect-udp", "websocket", Refusal::Malformed),
            ("GET", "POST", Refusal::Method),
            ("HTTP/1.1", "HTTP/1.0", Refusal::Malformed),
            ("/443/", "/0/", Refusal::Malformed),
        ] {
            assert_eq!(head(&all.replacen(old, new, 1)), Err(refusal), "{old} → {new}");
        }
        assert!(matches!(head("GET /status HTTP/1.1\r\nhost: a\r\nUpgrade: h2c\r\n\r\n"), Ok(Request::Page { .. })));
    }

    proptest! {
        #[test]
        fn any_fields_are_judged(fields in proptest::collection::vec((":(method|scheme|authority|path|protocol)|\\PC{0,5}", "GET|CONNECT|https|connect-udp|/|\\PC{0,20}"), 0..8)) {
            let borrowed: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let _ = judged(&borrowed);
        }
    }
}
