//! Shell completions and the manual page, made from the definitions of the flags.

use crate::error::{Error, Result};
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::cli::Cli;

/// Prints the completions of `shell`.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "alexnet-split", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// Prints the manual page, in roff.
pub fn man() -> Result<()> {
    let mut text = Vec::new();
    let page = Man::new(Cli::command());
    page.render(&mut text).map_err(|error| Error::Device(format!("the manual page cannot be made: {error}")))?;
    out!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
