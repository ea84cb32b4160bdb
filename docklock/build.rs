//! Tells the crate its version with the commit it was built from.

fn main() {
    bpi_program::version::tell("DOCKLOCK_VERSION", "DOCKLOCK_COMMIT");
}
