//! Tells the program which commit it was built from, where it is built from a repository.

use std::process::Command;

fn main() {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
    if let Some(output) = git.ok().filter(|output| output.status.success()) {
        println!("cargo:rustc-env=ALEXNET_SPLIT_COMMIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
