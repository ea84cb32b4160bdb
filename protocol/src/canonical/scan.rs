//! The grammar of canonical JSON as one pass over the bytes, allocating only for member names that hold escapes.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{CanonicalError, DEPTH_MAX, INTEGER_MAX};

/// Whether `bytes` are one canonical JSON value and nothing else.
///
/// # Errors
///
/// The first byte that is not, and why.
pub fn check(bytes: &[u8]) -> Result<(), CanonicalError> {
    let text = std::str::from_utf8(bytes).map_err(|error| CanonicalError::Utf8 { at: error.valid_up_to() })?;
    let mut scan = Scan { text, at: 0 };
    scan.value(0)?;
    match bytes.len() - scan.at {
        0 => Ok(()),
        _ if scan.peek().is_some_and(|byte| byte.is_ascii_whitespace()) => Err(CanonicalError::Blank { at: scan.at }),
        extra => Err(CanonicalError::Trailing { at: scan.at, extra }),
    }
}

/// `at` is always on a character boundary.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The error for whatever stands at `self.at`.
    fn refuse(&self, wanted: &'static str) -> CanonicalError {
        let at = self.at;
        match self.text[at..].chars().next() {
            None => CanonicalError::Truncated { at, within: wanted },
            Some(' ' | '\t' | '\n' | '\r') => CanonicalError::Blank { at },
            Some(found) => CanonicalError::Syntax { at, found: format!("{found:?}"), wanted },
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), CanonicalError> {
        let rest = &self.text[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        if word.starts_with(rest) {
            return Err(CanonicalError::Truncated { at: self.text.len(), within: word });
        }
        Err(self.refuse(word))
    }

    fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(CanonicalError::Depth { at: self.at }),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') if self.text[self.at..].starts_with("null") => Err(CanonicalError::Null { at: self.at }),
            _ => Err(self.refuse("a value")),
        }
    }

    /// After an element: true when `close` ends the list, false when a comma continues it.
    fn ends(&mut self, close: u8, within: &'static str) -> Result<bool, CanonicalError> {
        let ends = match self.peek() {
            Some(byte) if byte == close => true,
            Some(b',') => false,
            _ => return Err(self.refuse(within)),
        };
        self.at += 1;
        Ok(ends)
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if self.ends(b']', "a comma or the end of an array")? {
                return Ok(());
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut previous: Option<Cow<'a, str>> = None;
        loop {
            let at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.refuse("a member name"));
            }
            let name = self.string()?;
            if let Some(previous) = previous {
                ascends(at, &previous, &name)?;
            }
            previous = Some(name);
            self.word(":")?;
            self.value(depth)?;
            if self.ends(b'}', "a comma or the end of an object")? {
                return Ok(());
            }
        }
    }

    fn integer(&mut self) -> Result<(), CanonicalError> {
        let at = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let digits = &self.text[first..self.at];
        if digits.is_empty() {
            return Err(self.refuse("a digit"));
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            let found = self.text[at..=self.at].chars().take(40).collect();
            return Err(CanonicalError::Float { at, found });
        }
        if (digits.starts_with('0') && digits.len() > 1) || &self.text[at..self.at] == "-0" {
            return Err(CanonicalError::NumberSpelling { at });
        }
        match digits.parse::<u64>() {
            Ok(0..=INTEGER_MAX) => Ok(()),
            _ => {
                let found = self.text[at..self.at].chars().take(40).collect();
                Err(CanonicalError::Integer { at, found })
            }
        }
    }

    /// A string, decoded; borrowed when it has no escape.
    fn string(&mut self) -> Result<Cow<'a, str>, CanonicalError> {
        self.at += 1;
        let mut start = self.at;
        let mut decoded = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let tail = &self.text[start..self.at];
                    self.at += 1;
                    if decoded.is_empty() {
                        return Ok(Cow::Borrowed(tail));
                    }
                    decoded.push_str(tail);
                    return Ok(Cow::Owned(decoded));
                }
                Some(b'\\') => {
                    decoded.push_str(&self.text[start..self.at]);
                    decoded.push(self.escape()?);
                    start = self.at;
                }
                Some(control @ 0..=0x1f) => {
                    let found = format!("the control character {control:#04x}");
                    return Err(CanonicalError::Syntax { at: self.at, found, wanted: "an escape" });
                }
                // No byte of a longer character is one of the above, and the whole text is known to be UTF-8.
                Some(_) => self.at += 1,
                None => return Err(CanonicalError::Truncated { at: self.at, within: "a string" }),
            }
        }
    }

    /// One escape: the two-character ones of RFC 8785, 3.2.2.2, and `\u00xx` in lower case for the other control characters.
    fn escape(&mut self) -> Result<char, CanonicalError> {
        let at = self.at;
        let rest = &self.text.as_bytes()[at + 1..];
        let short = match rest.first() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.hex_escape(),
            Some(b'/') => return Err(CanonicalError::Escape { at }),
            None => return Err(CanonicalError::Truncated { at: at + 1, within: "an escape" }),
            Some(_) => {
                self.at += 1;
                return Err(self.refuse("an escape"));
            }
        };
        self.at += 2;
        Ok(short)
    }

    fn hex_escape(&mut self) -> Result<char, CanonicalError> {
        let at = self.at;
        let mut code = 0;
        for place in at + 2..at + 6 {
            self.at = place;
            match self.peek() {
                Some(digit @ b'0'..=b'9') => code = code * 16 + u32::from(digit - b'0'),
                Some(digit @ b'a'..=b'f') => code = code * 16 + u32::from(digit - b'a') + 10,
                Some(b'A'..=b'F') => return Err(CanonicalError::Escape { at }),
                _ => return Err(self.refuse("four hexadecimal digits")),
            }
        }
        self.at = at + 6;
        match char::from_u32(code) {
            Some(control @ '\0'..='\x1f') if !matches!(code, 8 | 9 | 10 | 12 | 13) => Ok(control),
            _ => Err(CanonicalError::Escape { at }),
        }
    }
}

/// RFC 8785, 3.2.3: names are ordered by their UTF-16 code units.
fn ascends(at: usize, previous: &str, name: &str) -> Result<(), CanonicalError> {
    match previous.encode_utf16().cmp(name.encode_utf16()) {
        Ordering::Less => Ok(()),
        Ordering::Equal => Err(CanonicalError::Duplicate { at, name: name.to_owned() }),
        Ordering::Greater => Err(CanonicalError::Order { at, name: name.to_owned(), previous: previous.to_owned() }),
    }
}
