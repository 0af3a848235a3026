//! Summaries of what was timed.

use serde::Serialize;

/// Percentiles of one kind of waiting, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Summarises microseconds; `None` without any.
    pub(crate) fn find(mut micros: Vec<u64>) -> Option<Self> {
        micros.sort_unstable();
        Some(Self {
            count: micros.len(),
            p50_ms: millis(percentile(&micros, 50)?),
            p90_ms: millis(percentile(&micros, 90)?),
            p99_ms: millis(percentile(&micros, 99)?),
            max_ms: millis(*micros.last()?),
        })
    }
}

/// The smallest value that at least `percent` of the sorted values do not exceed (nearest rank).
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub(crate) fn millis(micros: u64) -> f64 {
    number(micros) / 1000.0
}

/// A count as a figure of the report.
#[expect(clippy::cast_precision_loss, reason = "a report needs no more than 52 bits")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 50), Some(100));
        assert_eq!(percentile(&sorted, 99), Some(198));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }
}
