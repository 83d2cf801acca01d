//! What a container used, as lines in a picture; the page draws them as SVG.

use cac_core::pve::Sample;
use serde_json::{Value, json};

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 80.0;

/// Processor, memory and network; none without two points.
pub(crate) fn charts(samples: &[Sample]) -> Vec<Value> {
    if samples.len() < 2 {
        return Vec::new();
    }
    let cpu = |s: &Sample| s.cpu.map(|share| share * 100.0);
    let total = samples.iter().rev().find_map(|s| s.maxmem);
    let most =
        |take: fn(&Sample) -> Option<f64>| samples.iter().filter_map(take).fold(0.0, f64::max);
    let memory_top = total.unwrap_or_else(|| most(|s| s.mem)).max(1.0);
    let network_top = most(|s| s.netin).max(most(|s| s.netout)).max(1024.0);
    let last = |take: &dyn Fn(&Sample) -> Option<f64>| samples.iter().rev().find_map(take);
    let bytes_now =
        |take: fn(&Sample) -> Option<f64>| last(&take).map_or("not measured".to_owned(), bytes);
    vec![
        json!({
            "title": "Processor", "top": "100 %",
            "now": last(&cpu).map_or("not measured".to_owned(), |share| format!("{share:.1} %")),
            "lines": lines(samples, cpu, 100.0),
        }),
        json!({
            "title": "Memory", "top": bytes(memory_top), "now": format!("{} of {}", bytes_now(|s| s.mem), bytes(memory_top)),
            "lines": lines(samples, |s| s.mem, memory_top),
        }),
        json!({
            "title": "Network", "top": format!("{}/s", bytes(network_top)),
            "now": format!("in {}/s, out {}/s", bytes_now(|s| s.netin), bytes_now(|s| s.netout)),
            "lines": lines(samples, |s| s.netin, network_top), "second": lines(samples, |s| s.netout, network_top),
        }),
    ]
}

/// The points of each stretch that was measured, as `points` of SVG take them.
fn lines(samples: &[Sample], take: impl Fn(&Sample) -> Option<f64>, top: f64) -> Vec<String> {
    let (first, last) = (samples[0].time, samples[samples.len() - 1].time);
    let span = (last.saturating_sub(first)).max(1);
    let mut lines: Vec<Vec<String>> = vec![Vec::new()];
    for sample in samples {
        match take(sample).filter(|value| value.is_finite()) {
            Some(value) => {
                let x = lossy(sample.time.saturating_sub(first)) / lossy(span) * WIDTH;
                let y = HEIGHT - (value / top).clamp(0.0, 1.0) * (HEIGHT - 4.0);
                lines
                    .last_mut()
                    .expect("never empty")
                    .push(format!("{x:.1},{y:.1}"));
            }
            None => lines.push(Vec::new()),
        }
    }
    let drawn = lines.into_iter().filter(|line| line.len() > 1);
    drawn.map(|line| line.join(" ")).collect()
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a picture")]
fn lossy(seconds: u64) -> f64 {
    seconds as f64
}

/// Bytes in words, in binary units.
fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_were_not_measured_are_gaps() {
        let at = |time, cpu: Option<f64>| Sample {
            time,
            cpu,
            ..Sample::default()
        };
        let samples = [
            at(0, Some(0.0)),
            at(10, Some(1.0)),
            at(20, None),
            at(30, Some(0.5)),
            at(40, Some(0.5)),
        ];
        let drawn = charts(&samples);
        let lines = drawn[0]["lines"].as_array().unwrap();
        assert_eq!(lines[0], "0.0,80.0 75.0,4.0");
        assert_eq!(lines[1], "225.0,42.0 300.0,42.0");
        assert_eq!(drawn[0]["now"], "50.0 %");
        assert!(charts(&samples[..1]).is_empty());
        assert_eq!(
            (bytes(1023.0), bytes(1536.0), bytes(3.5e12)),
            ("1023 B".into(), "1.5 KiB".into(), "3.2 TiB".into())
        );
    }
}
