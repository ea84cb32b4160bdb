//! What members of the mesh ask of each other, as messages of BPCI: agents of validators, and everybody of pinners.
//!
//! Always true: bytes have one reading and one writing, and fit a message of BPCI. Absent on purpose: what validators say to each other, which is
//! their own, and order: each message stands for itself, may be lost, and may be sent again.

pub mod pinner;
pub mod validator;

use crate::consensus::bytes::{BytesError, Reader, Writer};

/// Longest message of this module: what BPCI carries ([`crate::frame::fragments::MESSAGE_BYTES_MAX`]).
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Takes a list from a reader: its count in two bytes, at most `max`, and so many values.
fn read_list<'a, T>(
    reader: &mut Reader<'a>,
    field: &'static str,
    max: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, BytesError>,
) -> Result<Vec<T>, BytesError> {
    let count = reader.count(field, max)?;
    // Grows with what is there, whatever the count says.
    (0..count).map(|_| read(reader)).collect()
}

fn write_list<T>(out: &mut Writer, list: &[T], mut write: impl FnMut(&mut Writer, &T)) {
    out.u16(list.len() as u16);
    list.iter().for_each(|value| write(out, value));
}
