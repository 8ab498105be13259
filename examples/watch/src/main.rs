//! Prints what happens to virtual machines.

fn main() {}
