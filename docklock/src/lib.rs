//! DockLock.
