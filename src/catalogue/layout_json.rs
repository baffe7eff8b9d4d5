//! The layout of a timetable with its prices, as the JSON that buyers get.
//!
//! A hall has tens of thousands of seats, so that the text is written into one
//! buffer, with what is the same for all seats of a row made once. It is the
//! same for all dates of a performance but for the id of the timetable, which
//! therefore comes first, and the rest is shared.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::domain::layout::{Layout, Row, Section};
use crate::domain::plan::{GradeIndex, Plan};

/// To be counted up when the text for the same seats and prices changes, since
/// it is part of the ETag.
pub(super) const FORMAT: u32 = 1;

/// An estimate of the text of one seat, in bytes.
const SEAT_BYTES: usize = 112;

/// Everything behind the id of the timetable.
pub(super) fn render(plan: &Plan) -> Bytes {
    let layout = &plan.layout;
    let mut out = String::with_capacity(layout.capacity() as usize * SEAT_BYTES + 256);
    out.push_str(",\"sections\":[");
    for (at, section) in layout.sections().iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let grade = plan
            .grade_of_section
            .get(at)
            .copied()
            .unwrap_or(GradeIndex(0));
        push_section(&mut out, layout, section, &priced(plan, grade));
    }
    out.push_str("],\"seat_order\":\"row-major\"}");
    Bytes::from(out)
}

/// `"grade":…,"price":…`
fn priced(plan: &Plan, grade: GradeIndex) -> String {
    let (name, price) = plan
        .grade(grade)
        .map_or(("", 0), |g| (g.name.as_str(), g.price.0));
    format!(
        "\"grade\":{},\"price\":{price}",
        serde_json::Value::from(name)
    )
}

fn push_section(out: &mut String, layout: &Layout, section: &Section, priced: &str) {
    // Names are letters and digits only, and writing to a String can't fail.
    let _ = write!(
        out,
        "{{\"name\":\"{}\",\"general_admission\":",
        section.name
    );
    if section.general_admission {
        let units = section.seats;
        let _ = write!(out, "true,\"rows\":[],\"units\":{units},{priced},\"x\":");
        push_coordinate(out, section.x);
        out.push_str(",\"y\":");
        push_coordinate(out, section.y);
        let _ = write!(out, ",\"accessible\":{}}}", section.accessible);
        return;
    }
    out.push_str("false,\"rows\":[");
    let range = section.rows.start as usize..section.rows.end as usize;
    for (at, row) in layout
        .rows()
        .get(range)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        if at > 0 {
            out.push(',');
        }
        push_row(out, section, row, priced);
    }
    out.push_str("]}");
}

fn push_row(out: &mut String, section: &Section, row: &Row, priced: &str) {
    let head = format!("{{\"seat_id\":\"{}-{}-", section.name, row.name);
    let middle = format!(",{priced},\"x\":");
    let mut tail = String::from(",\"y\":");
    push_coordinate(&mut tail, row.y);
    let _ = write!(
        tail,
        ",\"accessible\":{}}}",
        row.accessible || section.accessible
    );
    let _ = write!(out, "{{\"name\":\"{}\",\"seats\":[", row.name);
    for number in 1..=row.seats {
        if number > 1 {
            out.push(',');
        }
        out.push_str(&head);
        push_number(out, number);
        out.push_str("\",\"number\":");
        push_number(out, number);
        out.push_str(&middle);
        push_coordinate(out, row.x + (number - 1) as f32);
        out.push_str(&tail);
    }
    out.push_str("]}");
}

/// Seats mostly stand at whole coordinates, which need no search for the
/// shortest decimal.
fn push_coordinate(out: &mut String, value: f32) {
    let whole = value as i32;
    if whole as f32 == value {
        if whole < 0 {
            out.push('-');
        }
        push_number(out, whole.unsigned_abs());
    } else {
        let _ = write!(out, "{value}");
    }
}

fn push_number(out: &mut String, mut number: u32) {
    let mut digits = [0u8; 10];
    let mut from = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        from -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let digits = digits.get(from..).unwrap_or_default();
    out.push_str(std::str::from_utf8(digits).unwrap_or_default());
}
