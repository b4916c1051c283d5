//! The rule of which checkpoints are kept. It is about steps and does not touch files.

/// The checkpoints to keep, besides the one of the least held-out error.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The number of newest ones; those that a signal caused do not count, and are removed with the next one.
    pub newest: usize,
    /// The newest one from which a good step was made, as long as no kept one is known to be good.
    pub good: Option<u64>,
}

/// A checkpoint, as the rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Training steps done.
    pub step: u64,
    /// Whether a signal caused it.
    pub on_signal: bool,
    /// Share of held-out images whose best class is wrong, where they were evaluated.
    pub heldout_error: Option<f64>,
}

/// The steps of those to keep; `all` are in the order of their steps.
pub fn kept(all: &[Candidate], keep: Keep) -> Vec<u64> {
    let regular: Vec<&Candidate> = all.iter().filter(|it| !it.on_signal).collect();
    let newest = &regular[regular.len().saturating_sub(keep.newest.max(1))..];
    // Of equals the earliest.
    let evaluated = regular.iter().filter_map(|it| Some((it.step, it.heldout_error?)));
    let best = evaluated.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(step, _)| step);
    let is_good = |it: &&Candidate| it.heldout_error.is_some() || Some(it.step) == keep.good;
    let good = keep.good.filter(|_| !newest.iter().any(is_good));
    // The newest for a signal, until a regular one comes after it.
    let last_regular = newest.last().map(|it| it.step);
    let signalled = all.iter().rfind(|it| it.on_signal).map(|it| it.step).filter(|step| Some(*step) >= last_regular);
    let is_kept = |it: &&Candidate| {
        newest.iter().any(|new| new.step == it.step) || [best, good, signalled].contains(&Some(it.step))
    };
    all.iter().filter(is_kept).map(|it| it.step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps with what is known of each: `s` for a signal, else the held-out error in tenths, or `-` for none.
    fn steps_kept(known: &str, newest: usize, good: Option<u64>) -> Vec<u64> {
        let candidate = |(step, c): (u64, char)| Candidate {
            step,
            on_signal: c == 's',
            heldout_error: c.to_digit(10).map(|tenths| f64::from(tenths) / 10.),
        };
        kept(&(1..).zip(known.chars()).map(candidate).collect::<Vec<_>>(), Keep { newest, good })
    }

    #[test]
    fn the_newest_the_best_the_good_and_the_last_for_a_signal_stay() {
        assert!(steps_kept("", 2, None).is_empty());
        assert_eq!(steps_kept("----", 2, None), [3, 4]);
        assert_eq!(steps_kept("----", 0, None), [4], "one at least");
        assert_eq!(steps_kept("93359", 1, None), [2, 5], "of equals the earliest");
        assert_eq!(steps_kept("----", 2, Some(1)), [1, 3, 4], "none of the newest is known to be good");
        assert_eq!(steps_kept("---5", 2, Some(1)), [3, 4], "an evaluated one is good");
        assert_eq!(steps_kept("----", 2, Some(3)), [3, 4]);
        assert_eq!(steps_kept("-s-s", 1, None), [3, 4], "signals do not count, and the last one stays");
        assert_eq!(steps_kept("-s--", 1, None), [4], "gone with the next regular one");
        assert_eq!(steps_kept("ss", 2, None), [2]);
    }
}
