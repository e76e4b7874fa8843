//! The results as one picture: a bar panel per group of times, a line panel for throughput. Written by hand: the
//! few shapes needed are fewer lines than the settings of a plotting crate.

mod canvas;
mod scale;

use std::collections::BTreeMap;

use canvas::{Anchor, Canvas};
use scale::Scale;

use super::{Group, Results, number, table};

const WIDTH: f64 = 1060.0;
const MARGIN: f64 = 28.0;
/// Where the labels end and the bars begin.
const LEFT: f64 = 300.0;
/// Where the bars end and the values begin.
const RIGHT: f64 = 830.0;
const ROW: f64 = 26.0;
const LINE_HEIGHT: f64 = 250.0;

const OURS: &str = "#1f5fbf";
const OTHERS: &str = "#9aa5b1";
/// Colours of lines that are not ours.
const LINES: [&str; 5] = ["#c2571a", "#4c8b2b", "#7a5195", "#6b7280", "#b58900"];

/// The picture. `shown` names the groups and what their values are compared with; groups the run did not measure
/// are left out.
pub(crate) fn draw(results: &Results, shown: &[(&str, Option<&str>)], lines: &str) -> String {
    let mut canvas = Canvas::new(WIDTH);
    let mut y = 40.0;
    canvas.text(MARGIN, y, 20, "bold", Anchor::Start, "portlayer benchmark");
    y += 20.0;
    let subtitle = format!("commit {}, {}", results.commit, results.time);
    canvas.text(MARGIN, y, 12, "normal", Anchor::Start, &subtitle);
    y += 16.0;
    canvas.text(
        MARGIN,
        y,
        12,
        "normal",
        Anchor::Start,
        &table::machine(&results.machine),
    );
    y += 16.0;
    let legend = "bars: medians; whiskers: 10th to 90th percentile; blue: the port layer";
    canvas.text(MARGIN, y, 12, "normal", Anchor::Start, legend);
    for (key, base) in shown {
        let Some(group) = results.group(key) else {
            continue;
        };
        y = bars(&mut canvas, y + 44.0, group, *base);
    }
    if let Some(group) = results.group(lines) {
        y = line_chart(&mut canvas, y + 44.0, group);
    }
    canvas.finish(y + 30.0)
}

/// Whether a figure is the port layer's own.
fn ours(name: &str) -> bool {
    name.starts_with("portlayer")
}

fn heading(canvas: &mut Canvas, y: f64, group: &Group) -> f64 {
    let title = format!("{} ({})", group.title, group.unit.text());
    canvas.text(MARGIN, y, 15, "bold", Anchor::Start, &title);
    canvas.text(MARGIN, y + 16.0, 11, "normal", Anchor::Start, &group.note);
    y + 28.0
}

/// Horizontal bars from `y` on; returns where they end.
fn bars(canvas: &mut Canvas, y: f64, group: &Group, base: Option<&str>) -> f64 {
    let top = heading(canvas, y, group);
    let most = group
        .figures
        .iter()
        .map(|f| f.summary.p90.max(f.summary.median));
    let scale = Scale::new(most.fold(0.0, f64::max), LEFT, RIGHT);
    let rows = f64::from(u32::try_from(group.figures.len()).unwrap_or(u32::MAX));
    let bottom = top + rows * ROW;
    for tick in scale.ticks() {
        let x = scale.at(tick);
        canvas.line([x, top, x, bottom], "#e3e7eb", 1.0);
        canvas.text(
            x,
            bottom + 14.0,
            11,
            "normal",
            Anchor::Middle,
            &number(tick),
        );
    }
    let base = base.and_then(|name| Some((name, group.median(name)?)));
    let mut row = top;
    for figure in &group.figures {
        let summary = figure.summary;
        let middle = row + ROW / 2.0;
        let own = ours(&figure.name);
        let weight = if own { "bold" } else { "normal" };
        canvas.text(
            LEFT - 10.0,
            middle + 4.0,
            12,
            weight,
            Anchor::End,
            &figure.name,
        );
        let colour = if own { OURS } else { OTHERS };
        canvas.bar(
            [LEFT, row + 5.0, scale.at(summary.median) - LEFT, ROW - 10.0],
            colour,
        );
        if summary.n > 1 {
            let (low, high) = (scale.at(summary.p10), scale.at(summary.p90));
            canvas.line([low, middle, high, middle], "#222222", 1.2);
            for x in [low, high] {
                canvas.line([x, middle - 4.0, x, middle + 4.0], "#222222", 1.2);
            }
        }
        let mut value = format!("{} {}", number(summary.median), group.unit.text());
        if let Some((name, base)) = base
            && name != figure.name
        {
            value += &format!("   {:.2}x {name}", summary.median / base);
        }
        canvas.text(
            RIGHT + 14.0,
            middle + 4.0,
            12,
            weight,
            Anchor::Start,
            &value,
        );
        row += ROW;
    }
    canvas.line([LEFT, top, LEFT, bottom], "#444444", 1.2);
    bottom + 18.0
}

/// One line per name before ` @`, over the numbers behind it, evenly spaced; returns where it ends.
fn line_chart(canvas: &mut Canvas, y: f64, group: &Group) -> f64 {
    let top = heading(canvas, y, group);
    let bottom = top + LINE_HEIGHT;
    let mut series: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    let mut places: Vec<&str> = Vec::new();
    for figure in &group.figures {
        let Some((name, at)) = figure.name.rsplit_once(" @") else {
            continue;
        };
        if !places.contains(&at) {
            places.push(at);
        }
        series
            .entry(name)
            .or_default()
            .push((at, figure.summary.median));
    }
    let most = group.figures.iter().map(|figure| figure.summary.median);
    let scale = Scale::new(most.fold(0.0, f64::max), bottom, top);
    let (left, right) = (90.0, RIGHT - 60.0);
    for tick in scale.ticks() {
        let height = scale.at(tick);
        canvas.line([left, height, right, height], "#e3e7eb", 1.0);
        canvas.text(
            left - 8.0,
            height + 4.0,
            11,
            "normal",
            Anchor::End,
            &number(tick),
        );
    }
    let last = u32::try_from(places.len().saturating_sub(1).max(1)).unwrap_or(1);
    let step = (right - left - 40.0) / f64::from(last);
    let place_x = |at: &str| {
        let index = places.iter().position(|place| *place == at).unwrap_or(0);
        left + 20.0 + step * f64::from(u32::try_from(index).unwrap_or(0))
    };
    for place in &places {
        canvas.text(
            place_x(place),
            bottom + 16.0,
            12,
            "normal",
            Anchor::Middle,
            place,
        );
    }
    canvas.text(
        (left + right) / 2.0,
        bottom + 34.0,
        12,
        "normal",
        Anchor::Middle,
        "at once",
    );
    canvas.line([left, top, left, bottom], "#444444", 1.2);
    canvas.line([left, bottom, right, bottom], "#444444", 1.2);

    let mut colours = LINES.iter().cycle();
    let mut labels = Vec::new();
    for (name, points) in &series {
        let colour = match ours(name) {
            true => OURS,
            false => colours.next().copied().unwrap_or(OTHERS),
        };
        let drawn: Vec<(f64, f64)> = points
            .iter()
            .map(|(at, value)| (place_x(at), scale.at(*value)))
            .collect();
        canvas.polyline(&drawn, colour, if ours(name) { 3.0 } else { 1.8 });
        if let (Some((_, height)), Some((_, value))) = (drawn.last(), points.last()) {
            labels.push((*height, format!("{name}: {}", number(*value)), colour));
        }
    }
    // Labels at the ends of the lines, pushed apart so that they can be read.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::MIN;
    for (height, label, colour) in labels {
        let at = height.max(free);
        canvas.coloured_text(right + 10.0, at + 4.0, 12, colour, &label);
        free = at + 16.0;
    }
    bottom + 40.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Unit;

    #[test]
    fn every_figure_is_in_the_picture_and_names_are_escaped() {
        let mut group = Group::new("g", "A & B", Unit::Millis, "");
        group.push("ctr <x>", &[2.0, 4.0, 6.0]).unwrap();
        group.push("portlayer", &[1.0]).unwrap();
        let mut canvas = Canvas::new(WIDTH);
        let end = bars(&mut canvas, 0.0, &group, Some("ctr <x>"));
        let picture = canvas.finish(end);
        assert!(picture.contains("A &amp; B"));
        assert!(picture.contains("ctr &lt;x&gt;"));
        assert!(picture.contains("0.25x ctr"));
        assert!(picture.contains(OURS) && picture.contains(OTHERS));
    }
}
