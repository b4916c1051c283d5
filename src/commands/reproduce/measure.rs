//! From runs to numbers, and from numbers to a verdict that says no more than they do.

use crate::run::reader::Run;
use crate::text::{counted, short};

use super::claims::Measure;

/// The training error of figure 1's dashed line.
const REACHED: f64 = 0.25;

/// Differences up to so many standard errors are noise: Student's t that chance passes in one of twenty comparisons, for 1,
/// 2 ... degrees of freedom. Of few seeds the spread itself is little known.
const ERRORS: [f64; 10] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];

/// The measure of a run; `None` where the run does not have it.
pub fn of_run(measure: Measure, run: &Run) -> Option<f64> {
    match measure {
        Measure::HeldOutError => run.evals.last().map(|eval| 100. * eval.top1_error).filter(|error| error.is_finite()),
        Measure::EpochsTo25 => epochs_to(run, REACHED),
        Measure::ColourGap => colour_gap(run),
    }
}

/// The first epoch, from 1, whose batches' mean error is `error` or less, with the share of it that a straight line from
/// the epoch before gives.
fn epochs_to(run: &Run, error: f64) -> Option<f64> {
    let mut epochs: Vec<(u64, f64, f64)> = Vec::new();
    for step in &run.steps {
        match epochs.last_mut() {
            Some((epoch, sum, count)) if *epoch == step.epoch => (*sum, *count) = (*sum + step.top1_error, *count + 1.),
            _ => epochs.push((step.epoch, step.top1_error, 1.)),
        }
    }
    let means: Vec<f64> = epochs.iter().map(|(_, sum, count)| sum / count).collect();
    let at = means.iter().position(|&mean| mean <= error)?;
    // Each mean stands for its epoch's middle.
    let middle = at as f64 + 0.5;
    let Some(before) = at.checked_sub(1).map(|at| means[at]) else { return Some(middle) };
    Some(middle - (error - means[at]) / (before - means[at]))
}

/// Two streams differ by their means. One tower is cut into halves in the order of its filters, which is chance's: they
/// begin alike, and no stream tells them apart.
fn colour_gap(run: &Run) -> Option<f64> {
    let filters = run.filters.last()?;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let gap = match &filters.colourfulness[..] {
        [first, second] => mean(second) - mean(first),
        [tower] => mean(&tower[tower.len() / 2..]) - mean(&tower[..tower.len() / 2]),
        _ => return None,
    };
    Some(gap.abs()).filter(|gap| gap.is_finite())
}

/// Values of several seeds.
pub struct Sample {
    pub values: Vec<f64>,
    /// Seeds whose run is missing, or has no value.
    pub without: usize,
}

impl Sample {
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// The standard deviation over seeds; NaN of fewer than two.
    pub fn spread(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (self.values.len() as f64 - 1.)).sqrt()
    }

    /// For people.
    pub fn show(&self) -> String {
        match self.values.len() {
            0 => "-".into(),
            1 => short(self.mean()),
            count => format!("{} ± {} ({count} seeds)", short(self.mean()), short(self.spread())),
        }
    }
}

/// What a comparison allows to say.
pub fn verdict(measure: Measure, base: &Sample, variant: &Sample, published: Option<f64>) -> String {
    // Without the seeds that did not get there the others would flatter.
    match base.without + variant.without {
        0 => {}
        count => return format!("nothing: {}", counted(count, "run[s] [is|are] missing or did not get there")),
    }
    let difference = variant.mean() - base.mean();
    let of_mean = |sample: &Sample| sample.spread() / (sample.values.len() as f64).sqrt();
    let error = of_mean(base).hypot(of_mean(variant));
    if !error.is_finite() {
        return "nothing yet: the spread takes two seeds or more".into();
    }
    let freedom = base.values.len() + variant.values.len() - 2;
    if difference.abs() <= ERRORS[(freedom - 1).min(ERRORS.len() - 1)] * error {
        return format!("nothing: {} is within the spread of the seeds", short(difference));
    }
    let found = if difference > 0. { "more than the base" } else { "less than the base" };
    // The sign alone can be compared: data, network and length are others than the paper's.
    let expected = published.map(|published| if measure == Measure::EpochsTo25 { published - 1. } else { published });
    match expected {
        Some(expected) if expected * difference > 0. => format!("{found}, as published"),
        Some(_) => format!("{found}: the other way round than published"),
        None => found.into(),
    }
}

/// A comparison for people.
pub fn show_comparison(measure: Measure, value: f64) -> String {
    match measure {
        _ if !value.is_finite() => "-".into(),
        Measure::EpochsTo25 => format!("{value:.1} times"),
        Measure::HeldOutError => format!("{value:+.1}"),
        Measure::ColourGap => format!("{value:+.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample { values: values.to_vec(), without: 0 }
    }

    #[test]
    fn a_verdict_says_no_more_than_the_spread_allows() {
        let of = |base: &[f64], variant: &[f64], published| {
            verdict(Measure::HeldOutError, &sample(base), &sample(variant), published)
        };
        assert!(of(&[40., 41.], &[40.5, 41.5], Some(1.)).starts_with("nothing: 0.5"));
        assert_eq!(of(&[40., 40.2, 40.1], &[42., 42.1, 42.2], Some(1.)), "more than the base, as published");
        assert!(of(&[40., 40.2, 40.1], &[38., 38.1, 38.2], Some(1.)).contains("other way round"));
        assert_eq!(of(&[40., 40.2, 40.1], &[38., 38.1, 38.2], None), "less than the base");
        assert!(of(&[40.], &[50.], Some(1.)).contains("two seeds"));
        // Of two seeds each, three and a half standard errors are nothing yet.
        assert!(of(&[40., 40.2], &[40.5, 40.7], Some(1.)).starts_with("nothing: 0.5"));
        let late = Sample { values: vec![50., 50.1], without: 1 };
        let told = verdict(Measure::EpochsTo25, &sample(&[40., 40.1, 40.2]), &late, Some(6.));
        assert_eq!(told, "nothing: 1 run is missing or did not get there");
        // A ratio of six is published for figure 1: more is as published, as many are not.
        let ratio = |variant: &[f64]| verdict(Measure::EpochsTo25, &sample(&[5., 5.1]), &sample(variant), Some(6.));
        assert_eq!(ratio(&[20., 21.]), "more than the base, as published");
        assert!(ratio(&[3., 3.1]).contains("other way round"));
    }

    #[test]
    fn samples_have_a_mean_and_a_spread() {
        let values = sample(&[1., 2., 3.]);
        assert_eq!((values.mean(), values.spread()), (2., 1.));
        assert_eq!(sample(&[1.]).show(), "1.00");
        assert!(sample(&[1.]).spread().is_nan());
    }
}
