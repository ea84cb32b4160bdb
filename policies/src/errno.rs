//! The errnos a policy may answer with.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An errno of errno(3) by its Linux x86-64 number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

/// asm-generic/errno-base.h and errno.h; only refusals make sense here.
const NAMES: [(i32, &str); 12] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (11, "EAGAIN"),
    (13, "EACCES"),
    (16, "EBUSY"),
    (22, "EINVAL"),
    (25, "ENOTTY"),
    (38, "ENOSYS"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (97, "EAFNOSUPPORT"),
];

impl Errno {
    /// The caller may not.
    pub const EPERM: Self = Self(1);
    /// There is no such call.
    pub const ENOSYS: Self = Self(38);

    /// The errno of that name, if a policy may use it.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| Self(*number))
    }

    /// Positive number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Name, as in `EPERM`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.0).map_or("EUNKNOWN", |(_, name)| name)
    }

    /// Names a policy may use, for messages.
    pub fn known() -> String {
        NAMES.map(|(_, name)| name).join(", ")
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| {
            serde::de::Error::custom(format!("{name:?} is not an errno a policy may use ({})", Self::known()))
        })
    }
}
