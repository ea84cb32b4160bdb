#![allow(clippy::unwrap_used, missing_docs)]
//! A pinner from outside: what it acknowledges survives, what rots is found and made anew, and nobody takes more than his part.

mod mesh;
mod model;
mod objects;
mod policy;
mod power;
mod program;
mod rot;
mod site;
mod wrong;
