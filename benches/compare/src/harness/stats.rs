//! Order statistics of a few repetitions.

/// Median, quartiles and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            min: sorted[0],
            low: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            high: quantile(&sorted, 0.75),
            max: sorted[sorted.len() - 1],
        }
    }
}

/// Between the two neighbours, in proportion.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The median of times in nanoseconds.
pub fn median(times: &mut [u64]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2] as f64
}

/// The time that one in a hundred exceeds; the times are sorted.
pub fn slowest_hundredth(sorted: &[u64]) -> f64 {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)] as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_what_a_hand_counts() {
        let spread = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        let expected = Spread {
            min: 1.0,
            low: 2.0,
            median: 3.0,
            high: 4.0,
            max: 5.0,
        };
        assert_eq!(spread, expected);
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of(&[7.0]).high, 7.0);
    }
}
