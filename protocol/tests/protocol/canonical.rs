//! Canonical JSON: vectors of RFC 8785, and properties that hold for every value.

use std::collections::BTreeMap;

use bpi_protocol::canonical::{CanonicalError, DEPTH_MAX, INTEGER_MAX, check, from_bytes, to_bytes};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn members_are_in_the_order_of_rfc_8785() {
    // Section 3.2.3 of RFC 8785: its input, and the order of its output.
    let value: Value = serde_json::from_str(
        r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
            "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
    )
    .unwrap();
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
                    \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    assert_eq!(String::from_utf8(to_bytes(&value).unwrap()).unwrap(), expected);
    assert_eq!(check(expected.as_bytes()), Ok(()));
}

#[test]
fn strings_are_escaped_as_in_rfc_8785() {
    // Section 3.2.2, the string of its example.
    let value = json!({ "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/", "literals": [true, false] });
    let expected = "{\"literals\":[true,false],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(String::from_utf8(to_bytes(&value).unwrap()).unwrap(), expected);
    assert_eq!(from_bytes::<Value>(expected.as_bytes(), 1000), Ok(value));
}

#[test]
fn what_is_not_canonical_is_refused_with_its_own_reason() {
    let refused = |text: &str| check(text.as_bytes()).unwrap_err().to_string();
    for (text, reason) in [
        ("", "cut off at byte 0"),
        ("{", "cut off at byte 1"),
        ("[1", "cut off at byte 2"),
        ("tru", "cut off at byte 3"),
        ("\"a", "cut off at byte 2"),
        ("\"\\u00", "cut off at byte 5"),
        (" 1", "blank space at byte 0"),
        ("1\n", "blank space at byte 1"),
        ("{\"a\": 1}", "blank space at byte 5"),
        ("[1, 2]", "blank space at byte 3"),
        ("1 2", "blank space at byte 1"),
        ("{}{}", "2 bytes follow"),
        ("{\"b\":1,\"a\":2}", "member \"a\" at byte 7 should stand before \"b\""),
        ("{\"a\":1,\"a\":2}", "duplicate member \"a\" at byte 7"),
        ("1.0", "fraction or an exponent"),
        ("1e3", "fraction or an exponent"),
        ("1E3", "fraction or an exponent"),
        ("-0", "shorter spelling"),
        ("01", "shorter spelling"),
        ("9007199254740992", "beyond 2^53 - 1"),
        ("-9007199254740992", "beyond 2^53 - 1"),
        ("99999999999999999999999999", "beyond 2^53 - 1"),
        ("null", "null at byte 0"),
        ("[null]", "null at byte 1"),
        ("\"\\/\"", "the escape at byte 1 has a shorter spelling"),
        ("\"\\u0041\"", "the escape at byte 1 has a shorter spelling"),
        ("\"\\u000a\"", "the escape at byte 1 has a shorter spelling"),
        ("\"\\u001F\"", "the escape at byte 1 has a shorter spelling"),
        ("\"\\ud83d\\ude00\"", "the escape at byte 1 has a shorter spelling"),
        ("\"\\x\"", "not JSON at byte 2"),
        ("\"\\u00g0\"", "not JSON at byte 5"),
        ("\"\n\"", "not JSON at byte 1: the control character 0x0a"),
        ("+1", "not JSON at byte 0"),
        ("-", "cut off at byte 1"),
        ("-a", "not JSON at byte 1"),
        ("nul", "not JSON at byte 0"),
        ("{1:2}", "not JSON at byte 1"),
        ("{\"a\":1,}", "not JSON at byte 7"),
        ("[1,]", "not JSON at byte 3"),
        ("'a'", "not JSON at byte 0"),
        ("\u{feff}1", "not JSON at byte 0"),
    ] {
        assert!(refused(text).contains(reason), "{text:?}: {}", refused(text));
    }
    assert_eq!(check(b"\"\xff\""), Err(CanonicalError::Utf8 { at: 1 }));
}

#[test]
fn nesting_and_length_and_integers_have_limits() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
    assert_eq!(check(nested(DEPTH_MAX + 1).as_bytes()), Err(CanonicalError::Depth { at: DEPTH_MAX }));
    assert!(check("[".repeat(1_000_000).as_bytes()).is_err());
    assert_eq!(from_bytes::<Value>(b"true", 3), Err(CanonicalError::TooLong { bytes: 4, max: 3 }));
    assert_eq!(to_bytes(&INTEGER_MAX).unwrap(), b"9007199254740991");
    assert!(to_bytes(&(INTEGER_MAX + 1)).is_err());
    assert!(to_bytes(&u64::MAX).is_err());
    assert_eq!(to_bytes(&-5).unwrap(), b"-5");
    assert!(to_bytes(&0.5).is_err());
    assert!(to_bytes(&Option::<u64>::None).is_err());
}

/// Values that canonical JSON as narrowed here can hold.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-(INTEGER_MAX as i64)..=INTEGER_MAX as i64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x20\"\\\\/\u{7f}-\u{a0}\u{d7ff}\u{e000}\u{ffff}\u{10000}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|members: BTreeMap<String, Value>| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in value()) {
        let bytes = to_bytes(&value).unwrap();
        prop_assert_eq!(from_bytes::<Value>(&bytes, usize::MAX), Ok(value));
    }

    #[test]
    fn whatever_passes_is_the_one_spelling_of_what_it_says(value in value(), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut bytes = to_bytes(&value).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if check(&bytes).is_ok() {
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(to_bytes(&read).unwrap(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, text in "[\\[\\]{}\",:0-9a-eu\\\\ .-]{0,40}") {
        let judged = [check(&bytes), check(text.as_bytes())];
        for (judged, bytes) in judged.iter().zip([&bytes[..], text.as_bytes()]) {
            if judged.is_ok() {
                let read: Value = serde_json::from_slice(bytes).unwrap();
                prop_assert_eq!(&to_bytes(&read).unwrap()[..], bytes);
            }
        }
    }
}
