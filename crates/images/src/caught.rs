//! Panics of readers on damaged files: they are errors of the file, and their message is not for the user's terminal.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are caught.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; `None`, and nothing on the terminal, where it panics.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !CATCHING.get() {
                loud(panic);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_what_comes_after_it_is_loud_again() {
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(caught(|| caught(|| panic!("inner")).unwrap_or(6)), Some(6));
        assert_eq!(caught(|| -> u8 { panic!("outer") }), None);
        assert!(!CATCHING.get());
    }
}
