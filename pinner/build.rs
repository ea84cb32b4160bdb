//! Tells the crate its version with the commit it was built from.

fn main() {
    bpi_program::version::tell("BPI_PINNER_VERSION", "BPI_COMMIT");
}
