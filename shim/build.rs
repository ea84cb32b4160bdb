//! Packs the relocations of a position-independent program (DT_RELR, glibc 2.36): a megabyte of table that each start would read.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
