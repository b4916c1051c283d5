//! `alexnet-split`: see `--help` and the README.

use std::process::ExitCode;

fn main() -> ExitCode {
    alexnet_split::main()
}
