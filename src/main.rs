//! The process: arguments, configuration, server.

fn main() {}
