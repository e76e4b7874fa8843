//! The command `portlayer`: parse, call the port layer, show the result.

mod cli;

use std::process::ExitCode;

portlayer_node::allocator!();

fn main() -> ExitCode {
    cli::main()
}
