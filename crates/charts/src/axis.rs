//! Axes of charts: their ends, ticks and labels.

use crate::numbers::grouped;

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// Value at its lower end.
    pub low: f64,
    /// Value at its upper end; above `low`.
    pub high: f64,
    /// Its kind.
    pub scale: Scale,
}

/// The kind of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances are equal differences.
    Plain,
    /// The same for steps and counts: only whole numbers are labelled.
    Whole,
    /// The same for shares of 0 to 1, labelled as percent.
    Percent,
    /// Equal distances are equal factors.
    Logarithmic,
}

impl Axis {
    /// From `low` to `high`, both at the ends.
    pub fn exact(low: f64, high: f64) -> Axis {
        Axis { low, high: if high > low { high } else { low + 1. }, scale: Scale::Plain }
    }

    /// From 0 to a round number over `values`. One value in a hundred may lie beyond it, so that a few wild ones do not
    /// flatten the rest.
    pub fn from_zero(values: impl Iterator<Item = f64>) -> Axis {
        let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let rank = (values.len() as f64 * 0.99) as usize;
        let most = values.get(rank.min(values.len().saturating_sub(1))).copied().unwrap_or(0.);
        // A little room, then up to the next tick.
        let most = if most > 0. { most * 1.02 } else { 1. };
        let step = nice_step(most / 4.);
        Axis::exact(0., (most / step).ceil() * step)
    }

    /// The same over `few` values, too, all of them, unless those would flatten the `many`.
    pub fn from_zero_with(many: &[f64], few: &[f64]) -> Axis {
        /// Times the axis of the many.
        const MOST: f64 = 10.;
        let axis = Axis::from_zero(many.iter().copied());
        let most = few.iter().copied().filter(|v| v.is_finite() && (many.is_empty() || *v <= MOST * axis.high));
        let most = most.fold(0., f64::max);
        if many.is_empty() || most > axis.high { Axis::from_zero([most].into_iter()) } else { axis }
    }

    /// The same where values may be below 0, from a round number below the least.
    pub fn around_zero(values: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = values.clone().filter(|v| v.is_finite()).fold(0., f64::min);
        let axis = Axis::from_zero(values);
        if least == 0. {
            return axis;
        }
        let step = nice_step((axis.high - least) / 4.);
        Axis::exact((least * 1.02 / step).floor() * step, axis.high)
    }

    /// Over `values` above 0, with equal distances for equal factors.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values
            .filter(|v| v.is_finite() && *v > 0.)
            .fold((f64::INFINITY, 0f64), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.1, 1.) };
        let room = if high / low < 10. { 2.5 } else { 1.6 };
        Axis { scale: Scale::Logarithmic, ..Axis::exact(low / room, high * room) }
    }

    /// The same for shares, which end at 1.
    pub fn of_shares(self) -> Axis {
        Axis { high: self.high.min(1.), ..self }
    }

    /// The same for shares, labelled as percent.
    pub fn in_percent(self) -> Axis {
        Axis { scale: Scale::Percent, ..self.of_shares() }
    }

    /// The same, labelled at whole numbers alone.
    pub fn of_whole(self) -> Axis {
        Axis { scale: Scale::Whole, ..self }
    }

    /// The place of a value: 0 at the lower end, 1 at the upper one.
    pub fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
            _ => (value - self.low) / (self.high - self.low),
        }
    }

    /// Values to label, about `wanted` of them, and their labels.
    pub fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let inside = |value: &f64| (-1e-9..1. + 1e-9).contains(&self.place(*value));
        if self.scale == Scale::Logarithmic {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let decades = self.high.log10() - self.low.log10();
            let mantissas: &[i32] = if decades < 2.5 { &[1, 2, 5] } else { &[1] };
            let every = ((decades / wanted.max(1) as f64).ceil() as i32).max(1);
            let powers = (first..=last).filter(|power| power.rem_euclid(every) == 0);
            let ticks = powers.flat_map(|power| mantissas.iter().map(move |&mantissa| (mantissa, power)));
            let labelled =
                ticks.map(|(mantissa, power)| (f64::from(mantissa) * 10f64.powi(power), power_label(mantissa, power)));
            return labelled.filter(|(value, _)| inside(value)).collect();
        }
        let step = nice_step((self.high - self.low) / wanted.max(1) as f64);
        let first = (self.low / step).ceil() as i64;
        let values = (first..).map(|i| i as f64 * step).take(50).take_while(inside);
        let labelled = values.filter_map(|value| match self.scale {
            Scale::Percent => Some((value, label(100. * value, 100. * step) + "%")),
            Scale::Whole if (value - value.round()).abs() >= 1e-6 => None,
            Scale::Whole => Some((value, grouped(value.round().max(0.) as u64))),
            _ => Some((value, label(value, step))),
        });
        labelled.collect()
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `least`.
pub fn nice_step(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.) {
        return 1.;
    }
    let power = 10f64.powf(least.log10().floor());
    let fits = |factor: &f64| factor * power >= least * (1. - 1e-9);
    [1., 2., 2.5, 5.].into_iter().find(fits).unwrap_or(10.) * power
}

/// A tick's value with the decimals that its neighbours need.
fn label(value: f64, step: f64) -> String {
    if value.abs() >= 1e7 {
        let power = value.abs().log10().floor() as i32;
        let mantissa = format!("{:.2}", value.abs() / 10f64.powi(power));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        let ten = power_label(1, power);
        let size = if mantissa == "1" { ten } else { format!("{mantissa}·{ten}") };
        return if value < 0. { format!("−{size}") } else { size };
    }
    if value.abs() >= 1000. && step >= 1. {
        return format!("{}{}", if value < 0. { "−" } else { "" }, grouped(value.abs().round() as u64));
    }
    let whole = |decimals: i32| {
        let scaled = step * 10f64.powi(decimals);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    };
    let decimals = (0..9).find(|&decimals| whole(decimals)).unwrap_or(9);
    format!("{value:.*}", decimals as usize).replace('-', "−")
}

/// `mantissa` times ten to the `power`.
fn power_label(mantissa: i32, power: i32) -> String {
    if (-4..=5).contains(&power) {
        let value = f64::from(mantissa) * 10f64.powi(power);
        return if power > 2 { grouped(value as u64) } else { format!("{value:.*}", (-power).max(0) as usize) };
    }
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let power = power.to_string();
    let raised = power.chars().map(|c| c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]));
    let ten: String = ['1', '0'].into_iter().chain(raised).collect();
    if mantissa == 1 { ten } else { format!("{mantissa}·{ten}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [(0.9, 1.), (1., 1.), (1.3, 2.), (2.2, 2.5), (3., 5.), (7., 10.), (0.03, 0.05)] {
            assert!((nice_step(least) - step).abs() < 1e-12, "{least}: {}", nice_step(least));
        }
        assert_eq!(nice_step(0.), 1.);
        assert_eq!(nice_step(f64::NAN), 1.);
    }

    #[test]
    fn ticks_are_round_numbers_with_as_many_decimals_as_it_takes() {
        assert_eq!(labels(Axis::exact(0., 219.).ticks(5)), ["0", "50", "100", "150", "200"]);
        assert_eq!(labels(Axis::exact(0., 1.).ticks(4)), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(Axis::exact(0., 450_000.).ticks(3)), ["0", "200,000", "400,000"]);
        assert_eq!(labels(Axis::exact(0., 0.8).in_percent().ticks(4)), ["0%", "20%", "40%", "60%", "80%"]);
        assert_eq!(labels(Axis::exact(-1., 1.).ticks(4)), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(Axis::exact(0., 2.).of_whole().ticks(5)), ["0", "1", "2"]);
    }

    #[test]
    fn an_axis_from_zero_ends_at_a_tick_and_is_not_led_by_a_few_wild_values() {
        assert_eq!(Axis::from_zero([0.4, 2.3].into_iter()).high, 3.);
        let wild = (0..1000).map(|i| if i == 7 { 1e9 } else { f64::from(i) / 1000. });
        assert_eq!(Axis::from_zero(wild).high, 1.5);
        for empty in [vec![], vec![f64::NAN], vec![0.], vec![-3.]] {
            assert_eq!(Axis::from_zero(empty.into_iter()), Axis::exact(0., 1.));
        }
    }

    #[test]
    fn few_values_are_held_in_unless_they_would_flatten_the_many() {
        let many: Vec<f64> = (0..1000).map(|i| f64::from(i) / 200.).collect();
        assert_eq!(Axis::from_zero_with(&many, &[1., 2.]).high, Axis::from_zero(many.iter().copied()).high);
        assert_eq!(Axis::from_zero_with(&many, &[12.5]).high, 15.);
        assert_eq!(Axis::from_zero_with(&many, &[12.5, 5e26]).high, 15.);
        assert_eq!(Axis::from_zero_with(&[], &[f64::NAN, 0.7]).high, Axis::from_zero([0.7].into_iter()).high);
    }

    #[test]
    fn an_axis_around_zero_reaches_the_least() {
        assert_eq!(Axis::around_zero([0.3, 0.6].into_iter()), Axis::from_zero([0.3, 0.6].into_iter()));
        let axis = Axis::around_zero([0.6, 0.3, -0.3].into_iter());
        assert!(axis.low <= -0.3 && axis.low >= -0.5 && axis.high >= 0.6, "{axis:?}");
        assert!(axis.ticks(4).iter().any(|(value, _)| value.abs() < 1e-12), "{:?}", axis.ticks(4));
        assert!(Axis::around_zero([-1., -2.].into_iter()).low <= -2.);
    }

    #[test]
    fn large_numbers_are_powers() {
        assert_eq!(labels(Axis::exact(0., 6e26).ticks(3)), ["0", "2·10²⁶", "4·10²⁶", "6·10²⁶"]);
        assert_eq!(labels(Axis::exact(0., 5e7).ticks(2)), ["0", "2.5·10⁷", "5·10⁷"]);
        assert_eq!(power_label(5, 5), "500,000");
    }

    #[test]
    fn shares_end_at_all() {
        assert_eq!(Axis::from_zero([1.].into_iter()).in_percent().high, 1.);
        assert_eq!(Axis::from_zero([0.3].into_iter()).of_shares().high, 0.4);
    }

    #[test]
    fn a_logarithmic_axis_has_room_around_one_value_and_decades_over_many() {
        assert_eq!(labels(Axis::logarithmic([0.005].into_iter()).ticks(5)), ["0.002", "0.005", "0.01"]);
        let wide = Axis::logarithmic([1e-6, 0.01].into_iter());
        assert_eq!(labels(wide.ticks(5)), ["10⁻⁶", "10⁻⁵", "0.0001", "0.001", "0.01"]);
        assert!((wide.place(1e-4) - 0.5).abs() < 1e-9);
        assert_eq!(power_label(2, -7), "2·10⁻⁷");
        assert!(Axis::logarithmic([0., f64::NAN].into_iter()).ticks(4).len() >= 2);
    }
}
