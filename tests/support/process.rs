//! Processes that go on while a test looks at them.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything waited for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a command whose output is read when it has ended.
pub fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal such as `TERM`.
pub fn send(signal: &str, child: &Child) {
    let line = [format!("-{signal}"), child.id().to_string()];
    assert!(Command::new("kill").args(line).status().unwrap().success());
}

/// Waits until something is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}
