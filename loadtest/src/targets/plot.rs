//! A chart of memory over time: a line, the bound, and a shaded area while the database was stopped.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Instant;

use super::gateway::Resident;

/// The bound of T5.
const BOUND_MIB: f64 = 300.0;
/// The size of the picture and the margins of the plot, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 48.0;
/// The most points of the line. More would not be visible.
const POINTS_MAX: usize = 600;

/// Draws the resident memory.
///
/// Units:  MiB over seconds
pub(super) fn memory(title: &str, looks: &[Resident], away: Range<Instant>) -> String {
    let first = looks.first().map_or(away.start, |look| look.at);
    let seconds = |at: Instant| at.saturating_duration_since(first).as_secs_f64();
    let total = looks.last().map_or(1.0, |look| seconds(look.at)).max(1.0);
    let top = looks.iter().map(|look| look.mib).fold(BOUND_MIB, f64::max) * 1.1;
    let x = |second: f64| MARGIN + second / total * (WIDTH - 2.0 * MARGIN);
    let y = |mib: f64| HEIGHT - MARGIN - mib / top * (HEIGHT - 2.0 * MARGIN);
    let mut line = String::new();
    for look in looks
        .iter()
        .step_by(looks.len().div_ceil(POINTS_MAX).max(1))
    {
        // Writing to a String cannot fail.
        write!(line, "{:.1},{:.1} ", x(seconds(look.at)), y(look.mib)).ok();
    }
    let (from, to) = (x(seconds(away.start)), x(seconds(away.end).min(total)));
    let peak = looks.iter().map(|look| look.mib).fold(0.0, f64::max);
    let (left, right, bottom) = (MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{left}" y="24" font-size="14">{title}: {peak:.0} MiB at most</text>
<rect x="{from:.1}" y="{MARGIN}" width="{width:.1}" height="{height}" fill="#eee"/>
<text x="{from:.1}" y="{label}" dx="4" fill="#666">the database does not answer</text>
<line x1="{left}" y1="{bound:.1}" x2="{right}" y2="{bound:.1}" stroke="#c00" stroke-dasharray="6 4"/>
<text x="{right}" y="{bound:.1}" dy="-4" text-anchor="end" fill="#c00">{BOUND_MIB} MiB</text>
<polyline points="{line}" fill="none" stroke="#06c" stroke-width="1.5"/>
<path d="M{left} {MARGIN}V{bottom}H{right}" fill="none" stroke="#333"/>
<text x="{left}" y="{bottom}" dy="16">0 s</text>
<text x="{right}" y="{bottom}" dy="16" text-anchor="end">{total:.0} s</text>
<text x="{left}" y="{bottom}" dx="-6" text-anchor="end">0</text>
</svg>
"##,
        width = (to - from).max(0.0),
        height = HEIGHT - 2.0 * MARGIN,
        label = bottom - 8.0,
        bound = y(BOUND_MIB),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_plot_spans_all_samples_and_states_the_peak() {
        let began = Instant::now();
        let look = |second: u64, mib| Resident {
            at: began + Duration::from_secs(second),
            mib,
        };
        let looks = [look(0, 20.0), look(5, 64.0), look(10, 30.0)];
        let away = looks[0].at + Duration::from_secs(2)..looks[0].at + Duration::from_secs(4);
        let svg = memory("Memory", &looks, away);
        assert!(svg.contains("Memory: 64 MiB at most"), "{svg}");
        assert!(svg.contains("points=\"48.0,"), "{svg}");
        assert!(svg.contains(" 672.0,"), "{svg}");
        assert!(svg.contains(">10 s<"), "{svg}");
    }
}
