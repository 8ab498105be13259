//! The smallest service worth copying.

fn main() {}
