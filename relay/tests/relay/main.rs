#![allow(clippy::unwrap_used, missing_docs)]
//! The relay's heart from outside: what it decides, whom it is fair to, and that nothing grows without bound.

mod bounds;
mod budget;
mod mesh;
mod program;
mod recent;
mod store;
mod switch;
