//! Protobuf's well-known types and this program's, both ways.

use std::time::{SystemTime, UNIX_EPOCH};

use containerd_shim_protos::protobuf::MessageFull;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;

/// Wraps a message under its full name, without a host: how containerd's typeurl finds it.
pub fn any<M: MessageFull>(message: &M) -> Any {
    Any {
        type_url: M::descriptor().full_name().to_owned(),
        value: message.write_to_bytes().expect("a message without required fields encodes"),
        ..Any::default()
    }
}

/// A moment; one before 1970 is 1970.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        // Below 10⁹, so it always fits.
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Timestamp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::events::task::TaskStart;
    use std::time::Duration;

    #[test]
    fn an_event_goes_under_the_name_containerd_registered() {
        assert_eq!(any(&TaskStart::default()).type_url, "containerd.events.TaskStart");
    }

    #[test]
    fn a_moment_keeps_its_nanoseconds() {
        let stamp = timestamp(UNIX_EPOCH + Duration::new(5, 7));
        assert_eq!((stamp.seconds, stamp.nanos), (5, 7));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)).seconds, 0);
    }
}
