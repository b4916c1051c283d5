//! Many values made few: thinned points, smoothed lines.

/// Points of a chart's cloud, at most.
pub const CLOUD: usize = 600;

/// Points of a chart's line, at most.
pub const LINE: usize = 300;

/// At most `most` of the points, at equal distances, the last one among them.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(most.max(1)).max(1);
    let skip = points.len().saturating_sub(1) % every;
    points.iter().skip(skip).step_by(every).copied().collect()
}

/// The mean of each point's neighbours, 1% of all points to either side but 3 at least, thinned; what is not finite is
/// left out.
pub fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.iter().filter(|point| point.1.is_finite()).copied().collect();
    let mut sums = vec![0.];
    for (number, point) in points.iter().enumerate() {
        sums.push(sums[number] + point.1);
    }
    let reach = (points.len() / 100).max(3);
    let mean = |number: usize| {
        // At the beginning, where curves are steep, as far to both sides: a lopsided mean would pull the line.
        let reach = reach.min(number);
        let (from, to) = (number - reach, (number + reach + 1).min(points.len()));
        (points[number].0, (sums[to] - sums[from]) / (to - from) as f64)
    };
    thinned(&(0..points.len()).map(mean).collect::<Vec<_>>(), LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_last_point_and_no_more_than_asked_for() {
        let points: Vec<(f64, f64)> = (0..1234).map(|i| (f64::from(i), 0.)).collect();
        let few = thinned(&points, 100);
        assert!(few.len() <= 100 && few.len() > 80, "{}", few.len());
        assert_eq!(few.last(), points.last());
        assert_eq!(thinned(&points, 5000), points);
        assert_eq!(thinned(&[], 10), []);
    }

    #[test]
    fn a_straight_line_stays_one_and_noise_goes() {
        let line: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), 2. * f64::from(i))).collect();
        assert!(smoothed(&line)[..195].iter().all(|&(x, y)| (y - 2. * x).abs() < 1e-9));
        let noise: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), if i % 2 == 0 { 1. } else { -1. })).collect();
        assert!(smoothed(&noise)[3..].iter().all(|point| point.1.abs() < 0.21));
        assert_eq!(smoothed(&[(0., f64::NAN)]), []);
    }
}
