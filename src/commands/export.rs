//! `export`: a run's network, both halves merged, for PyTorch.

use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::train::export;

use super::on_run;
use crate::cli::ExportArgs;

/// The format that export writes.
const EXPORTED: &str = "safetensors";

pub fn export(args: &ExportArgs) -> Result<()> {
    if args.file.extension().is_none_or(|ending| ending != EXPORTED) {
        let problem =
            format!("export writes {EXPORTED} files; call it {}", args.file.with_extension(EXPORTED).display());
        return Err(Error::Usage(format!("{}: {problem}", args.file.display())));
    }
    if args.file.parent().is_some_and(checkpoint::is_checkpoint) {
        let problem = "lies in a checkpoint, which it would damage; give a file elsewhere";
        return Err(Error::Usage(format!("{}: {problem}", args.file.display())));
    }
    on_run!(&args.run, false, |session| export::export(&mut session, &args.file)?);
    outln!("wrote {}: load it with scripts/load_exported.py", args.file.display());
    Ok(())
}
