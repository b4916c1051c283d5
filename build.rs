//! Tells the program which commit it was built from, where it is built from a repository.

use std::process::Command;

fn main() {
    // Looked at again when something is committed or staged, not with every change of a file: it would be compiled anew.
    for file in [".git/HEAD", ".git/index"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
    if let Some(output) = git.ok().filter(|output| output.status.success()) {
        println!("cargo:rustc-env=ALEXNET_SPLIT_COMMIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
