//! Names of sockets, as the bytes of a `struct sockaddr`: bind(2) and getsockname(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Longest name of a socket (`struct sockaddr_storage`).
const NAME_BYTES_MAX: usize = 128;

/// Gives a socket a name.
///
/// # Errors
/// `EADDRINUSE` when another one has it, `EINVAL` when this one has a name already.
pub fn bind(socket: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let length = name.len() as libc::socklen_t;
    // SAFETY: `name` is a live slice, whose length goes with it, and which the kernel only reads.
    unsafe { check(libc::bind(socket.as_raw_fd(), name.as_ptr().cast(), length).into()) }?;
    Ok(())
}

/// A socket's own name; of one that has none, only its family and zeroes.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn name(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; NAME_BYTES_MAX];
    let mut length = NAME_BYTES_MAX as libc::socklen_t;
    // SAFETY: `bytes` is a live, writable buffer of `length` bytes, and `length` a live integer.
    unsafe { check(libc::getsockname(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut length).into()) }?;
    bytes.truncate(length as usize);
    Ok(bytes)
}

/// True when a socket passes its sender's credentials on (SO_PASSCRED, unix(7)): then it needs a name, and gets one.
pub fn passes_credentials(socket: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is a live integer of `length` bytes, and `length` another.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    asked == 0 && value != 0
}
