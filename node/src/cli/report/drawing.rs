//! Drawings as SVG text: a frame with two axes, and lines, bands, dots and bars within it.

use std::fmt::Write;

use super::scale::{Scale, Tick};

const WIDTH: f64 = 960.0;
/// Room for what stands left of, above, right of and below the frame.
const LEFT: f64 = 58.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 14.0;
const BELOW: f64 = 30.0;

/// How large a drawing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As wide as the page.
    Wide,
    /// The same, and half as high.
    Low,
    /// Half as wide.
    Half,
}

/// A drawing in the making.
#[derive(Debug)]
pub struct Plot {
    width: f64,
    height: f64,
    x: Scale,
    y: Scale,
    axes: String,
    body: String,
}

impl Plot {
    pub fn new(size: Size, x: Scale, y: Scale) -> Plot {
        let (width, height) = match size {
            Size::Wide => (WIDTH, 300.0),
            Size::Low => (WIDTH, 190.0),
            Size::Half => (WIDTH / 2.0, 300.0),
        };
        Plot { width, height, x, y, axes: String::new(), body: String::new() }
    }

    /// With times along the bottom.
    pub fn over_time(size: Size, x: Scale, y: Scale) -> Plot {
        let mut plot = Plot::new(size, x, y);
        let ticks = x.time_ticks(plot.across());
        plot.ticks_below(&ticks);
        plot.ticks_left(&y.ticks(plot.up()));
        plot
    }

    /// With numbers along the bottom.
    pub fn over_numbers(size: Size, x: Scale, y: Scale) -> Plot {
        let mut plot = Plot::new(size, x, y);
        let ticks = x.ticks(plot.across());
        plot.ticks_below(&ticks);
        plot.ticks_left(&y.ticks(plot.up()));
        plot
    }

    /// About so many ticks along the bottom, and up.
    fn across(&self) -> f64 {
        self.width / 110.0
    }

    fn up(&self) -> f64 {
        self.height / 55.0
    }

    fn left(&self, x: f64) -> f64 {
        // Far outside the frame is as good as anywhere outside.
        LEFT + (self.x.part(x) * (self.width - LEFT - RIGHT)).clamp(-1e4, 1e4)
    }

    fn top(&self, y: f64) -> f64 {
        let height = self.height - TOP - BELOW;
        TOP + ((1.0 - self.y.part(y)) * height).clamp(-1e4, 1e4)
    }

    fn ticks_below(&mut self, ticks: &[Tick]) {
        let bottom = self.height - BELOW;
        for (at, text) in ticks {
            let x = self.left(*at);
            _ = write!(
                self.axes,
                r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 18.0,
                escaped(text)
            );
        }
    }

    fn ticks_left(&mut self, ticks: &[Tick]) {
        let right = self.width - RIGHT;
        for (at, text) in ticks {
            let y = self.top(*at);
            _ = write!(
                self.axes,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                y + 4.0,
                escaped(text)
            );
        }
    }

    fn way(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        points.enumerate().fold(String::new(), |mut way, (index, (x, y))| {
            let letter = if index == 0 { 'M' } else { 'L' };
            _ = write!(way, "{letter}{:.1} {:.1}", self.left(x), self.top(y));
            way
        })
    }

    pub fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let way = self.way(points);
        _ = write!(self.body, r#"<path class="line {class}" d="{way}"/>"#);
    }

    /// What lies between two lines: (x, low, high).
    pub fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        let there = points.iter().map(|(x, low, _)| (*x, *low));
        let back = points.iter().rev().map(|(x, _, high)| (*x, *high));
        let way = self.way(there.chain(back));
        _ = write!(self.body, r#"<path class="band {class}" d="{way}Z"/>"#);
    }

    /// A dot that tells something when it is pointed at.
    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), tells: &str) {
        let (left, top) = (self.left(x), self.top(y));
        _ = write!(self.body, r#"<circle class="{class}" cx="{left:.1}" cy="{top:.1}" r="3">"#);
        _ = write!(self.body, "<title>{}</title></circle>", escaped(tells));
    }

    /// An upright line from one value to another.
    pub fn stalk(&mut self, class: &str, x: f64, from: f64, to: f64) {
        let (left, from, to) = (self.left(x), self.top(from), self.top(to));
        _ = write!(self.body, r#"<path class="line {class}" d="M{left:.1} {from:.1}V{to:.1}"/>"#);
    }

    /// A bar that stands on the bottom, between two places.
    pub fn bar(&mut self, class: &str, (from, to): (f64, f64), height: f64, tells: &str) {
        let (left, right, top) = (self.left(from), self.left(to), self.top(height));
        let bottom = self.height - BELOW;
        _ = write!(
            self.body,
            r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
            (right - left - 1.0).max(0.5),
            (bottom - top).max(0.0),
            escaped(tells)
        );
    }

    /// A line across the whole frame, upright.
    pub fn mark(&mut self, class: &str, x: f64, tells: &str) {
        let (left, bottom) = (self.left(x), self.height - BELOW);
        _ = write!(
            self.body,
            r#"<path class="line {class}" d="M{left:.1} {TOP}V{bottom}"><title>{}</title></path>"#,
            escaped(tells)
        );
    }

    /// A line across the whole frame, level.
    pub fn level(&mut self, class: &str, y: f64) {
        let (top, right) = (self.top(y), self.width - RIGHT);
        _ = write!(self.body, r#"<path class="line {class}" d="M{LEFT} {top:.1}H{right}"/>"#);
    }

    /// Words within the frame, at its right or left end.
    pub fn words(&mut self, x: f64, y: f64, text: &str) {
        let (left, top) = (self.left(x), self.top(y));
        _ = write!(
            self.body,
            r#"<text class="note" x="{left:.1}" y="{:.1}">{}</text>"#,
            top - 5.0,
            escaped(text)
        );
    }

    /// What is drawn, for people who see it and `label` for those who hear it. `below`: what the
    /// bottom says.
    pub fn svg(self, label: &str, below: &str) -> String {
        let Plot { width, height, axes, body, .. } = self;
        let (inner_width, inner_height) = (width - LEFT - RIGHT, height - TOP - BELOW);
        let (bottom, below) = (height - BELOW, escaped(below));
        let room = if below.is_empty() { 0.0 } else { 16.0 };
        let named = match below.is_empty() {
            true => String::new(),
            false => format!(
                r#"<text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">{below}</text>"#,
                LEFT + inner_width / 2.0,
                height + 10.0
            ),
        };
        format!(
            concat!(
                r#"<svg viewBox="0 0 {width} {whole}" role="img" aria-label="{label}">{axes}"#,
                r#"<svg x="{left}" y="{top}" width="{inner_width}" height="{inner_height}" "#,
                r#"viewBox="{left} {top} {inner_width} {inner_height}">{body}</svg>"#,
                r#"<path class="foot" d="M{left} {bottom}h{inner_width}"/>{named}</svg>"#
            ),
            width = width,
            whole = height + room,
            label = escaped(label),
            axes = axes,
            left = LEFT,
            top = TOP,
            inner_width = inner_width,
            inner_height = inner_height,
            body = body,
            bottom = bottom,
            named = named
        )
    }
}

/// Text as it stands in HTML and SVG, within quotes too.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, letter| {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_within_its_frame_and_says_what_it_is() {
        let unit = Scale { from: 0.0, to: 1.0 };
        let mut plot = Plot::over_numbers(Size::Half, unit, unit);
        plot.line("model", [(0.0, 0.0), (1.0, 1.0)].into_iter());
        plot.dot("truth", (0.5, 1e300), "<b>");
        let svg = plot.svg("a \"line\"", "part");
        assert!(svg.contains(r#"<path class="line model" d="M58.0 270.0L466.0 10.0"/>"#), "{svg}");
        assert!(svg.contains("<title>&lt;b&gt;</title>") && svg.contains("a &quot;line&quot;"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
