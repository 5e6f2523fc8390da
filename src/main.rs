//! The `daftari` command.
fn main() {}
