//! `alexnet-split`: see `--help` and the README.

#[macro_use]
extern crate alexnet_split;

mod cli;
mod commands;

use std::path::Path;
use std::process::ExitCode;

use alexnet_split::error::Error;
use alexnet_split::show::logs;
use alexnet_split::text;
use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logs::start(cli.verbose);
    let unprinted =
        || text::failure().map_or(Ok(()), |error| Err(Error::io("write", Path::new("standard output"))(error)));
    match commands::run(cli).and_then(|()| unprinted()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("error: {error}");
            // Not by returning: threads that nobody waits for may be ending NCCL's communicators, or hang in a device,
            // and must not meet libraries that have cleaned up. Everything is printed and on the disk.
            signal_hook::low_level::exit(i32::from(error.exit_code()))
        }
    }
}
