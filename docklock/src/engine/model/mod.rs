//! The pure models: what a guest is told, as functions of logical state alone.
