//! `alexnet-split`: see `--help` and the README.

#[macro_use]
extern crate alexnet_split;

mod cli;
mod commands;

use std::path::Path;
use std::process::ExitCode;

use alexnet_split::error::Error;
use alexnet_split::report::{logs, out};
use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logs::start(cli.verbose);
    let unprinted =
        || out::failure().map_or(Ok(()), |error| Err(Error::io("write", Path::new("standard output"))(error)));
    match commands::run(cli).and_then(|()| unprinted()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
