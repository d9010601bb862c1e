//! The plot of the section on objects: what was measured above, what is modelled below, each with an axis of its own.

use super::objects::{CPUS, Measured, Modelled, Row};
use core::error::Error;
use core::ops::Range;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// Distinguishable for the colour-blind (Okabe and Ito).
const BLACK: RGBColor = RGBColor(0, 0, 0);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const RED: RGBColor = RGBColor(213, 94, 0);
const PINK: RGBColor = RGBColor(204, 121, 167);
const YELLOW: RGBColor = RGBColor(230, 159, 0);

/// Pixels from one name to the next.
const NAME: i32 = 17;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

struct Curve {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn new<T>(
        name: impl Into<String>,
        colour: RGBColor,
        rows: &[T],
        point: impl Fn(&T) -> (usize, f64),
    ) -> Self {
        let points = rows.iter().map(point);
        Curve {
            name: name.into(),
            colour,
            points: points.map(|(bytes, ns)| (bytes as f64, ns)).collect(),
        }
    }
}

fn panel(
    area: &Panel<'_>,
    title: &str,
    unit: &str,
    curves: &[Curve],
) -> Result<(), Box<dyn Error>> {
    let values = || {
        curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|(_, ns)| *ns)
    };
    let lowest = values().fold(f64::INFINITY, f64::min);
    let highest = values().fold(0.0, f64::max);
    let along: Range<f64> = 28.0..4300.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .margin_right(230)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(
            along.log_scale().base(2.0),
            (lowest * 0.7..highest * 1.5).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(220, 220, 220))
        .x_desc("bytes of an object that crosses from one frame into the next (log scale)")
        .y_desc(format!("{unit} (log scale)"))
        .x_label_formatter(&|bytes| format!("{bytes:.0}"))
        .y_label_formatter(&|ns| match *ns {
            ns if ns < 1e3 => format!("{ns:.0}"),
            ns => format!("{:.0} 000", ns / 1e3),
        })
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 13))
        .draw()?;
    let mut names = Vec::new();
    for curve in curves {
        let line = LineSeries::new(curve.points.iter().copied(), curve.colour.stroke_width(2));
        chart.draw_series(line.point_size(3))?;
        let end = curve.points.last().copied().unwrap_or((4096.0, lowest));
        names.push((chart.backend_coord(&end), curve));
    }
    // Beside the ends of their curves, as near as can be read.
    names.sort_by_key(|((_, y), _)| *y);
    let (left, top) = area.get_base_pixel();
    let mut above = i32::MIN;
    for ((x, y), curve) in names {
        let y = (y - top - 7).max(above);
        above = y + NAME;
        let style = ("sans-serif", 13).into_font().color(&curve.colour);
        area.draw(&Text::new(curve.name.clone(), (x - left + 22, y), style))?;
    }
    Ok(())
}

/// Draws one panel for what was measured and one for each table of costs.
///
/// # Errors
///
/// The file could not be written.
pub(crate) fn draw(
    file: &Path,
    measured: &Measured,
    modelled: &[(&str, Vec<Vec<Modelled>>)],
) -> Result<(), Box<dyn Error>> {
    let panels = 1 + modelled.len();
    let root = SVGBackend::new(file, (960, 400 * panels as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((panels, 1));
    let rows = &measured.sums;
    let curves = [
        Curve::new("mapped, a thread running beside", RED, rows, |row: &Row| {
            (row.bytes, row.mapped_beside)
        }),
        Curve::new("mapped, alone", YELLOW, rows, |row: &Row| {
            (row.bytes, row.mapped)
        }),
        Curve::new("copied", BLUE, rows, |row: &Row| (row.bytes, row.copied)),
        Curve::new("two segments", GREEN, rows, |row: &Row| {
            (row.bytes, row.segments.unwrap_or(row.copied))
        }),
    ];
    let title = "MEASURED on the host: reading an object (CRC-32C)";
    panel(&areas[0], title, "measured ns", &curves)?;
    for (area, (name, all)) in areas[1..].iter().zip(modelled) {
        let global = |cpus: u16, colour| {
            let rows = &all[CPUS.iter().position(|one| *one == cpus).unwrap_or(0)];
            let name = format!("mapped, shootdown of {cpus} CPUs");
            Curve::new(name, colour, rows, |row: &Modelled| (row.bytes, row.global))
        };
        let curves = [
            global(64, BLACK),
            global(8, RED),
            global(2, PINK),
            Curve::new("mapped, local flush", YELLOW, &all[0], |row: &Modelled| {
                (row.bytes, row.local)
            }),
            Curve::new("copied", BLUE, &all[0], |row: &Modelled| {
                (row.bytes, row.copied)
            }),
            Curve::new("two segments", GREEN, &all[0], |row: &Modelled| {
                (row.bytes, row.segments)
            }),
        ];
        panel(area, &format!("MODELLED: {name}"), "modelled ns", &curves)?;
    }
    root.present()?;
    Ok(())
}
