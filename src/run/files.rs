//! The names of the files in a run's directory.

/// The recipe, as the run uses it.
pub const RECIPE: &str = "recipe.toml";
/// The start of a run, besides its recipe: see [`RunInfo`](super::dir::RunInfo).
pub const INFO: &str = "run.json";
/// A line for each step, evaluation and record of the network: see [`Row`](super::rows::Row).
pub const METRICS: &str = "metrics.jsonl";
/// A line for each start, end and warning: see [`Event`](super::rows::Event).
pub const JOURNAL: &str = "journal.jsonl";
/// The timeline of the newest step that was observed.
pub const TIMELINE: &str = "timeline.json";
/// The lines that the terminal showed.
pub const LOG: &str = "log.txt";
/// Locked while a process trains the run.
pub const LOCK: &str = "lock";
/// The folder of TensorBoard's files.
pub const TENSORBOARD: &str = "tensorboard";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of the first layer's pictures.
pub const FILTERS: &str = "filters";
/// The page that `report` writes.
pub const REPORT: &str = "report.html";
