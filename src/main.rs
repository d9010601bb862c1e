//! The `pageless` command line.
fn main() {}
