//! The engine: the process that supervises, orders and answers the tasks of one container.

pub mod model;
pub mod report;
