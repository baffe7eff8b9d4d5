use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn section(name: &str, shape: SectionShape) -> SectionSpec {
    let name = name.to_owned();
    SectionSpec {
        name,
        shape,
        x: 0.0,
        y: 0.0,
        accessible: false,
    }
}

fn row(name: &str, seats: u32) -> RowSpec {
    let name = name.to_owned();
    RowSpec {
        name,
        seats,
        x: None,
        y: None,
        accessible: false,
    }
}

fn grid(name: &str, rows: u32, seats_per_row: u32) -> SectionSpec {
    section(
        name,
        SectionShape::Grid {
            rows,
            seats_per_row,
        },
    )
}

fn pit(name: &str, units: u32) -> SectionSpec {
    section(name, SectionShape::GeneralAdmission { units })
}

fn venue() -> Layout {
    let rows = vec![row("A", 12), row("B", 14)];
    let f1 = section("F1", SectionShape::Rows(rows));
    Layout::build(&[f1, pit("PIT", 500), grid("나", 30, 10)]).unwrap()
}

#[test]
fn seats_are_counted_row_major_over_sections_in_order() {
    let venue = venue();
    assert_eq!(venue.capacity(), 12 + 14 + 500 + 300);
    let name = |seat| venue.name_of(SeatIndex(seat)).to_string();
    assert_eq!(name(0), "F1-A-1");
    assert_eq!(name(11), "F1-A-12");
    assert_eq!(name(12), "F1-B-1");
    assert_eq!(name(26), "PIT-000001");
    assert_eq!(name(525), "PIT-000500");
    assert_eq!(name(526), "나-A-1");
    assert_eq!(name(825), "나-AD-10");
    assert_eq!(venue.row_of(SeatIndex(26)), None);
    assert_eq!(venue.row_of(SeatIndex(826)), None);
    assert_eq!(venue.section_of(SeatIndex(525)), Some(SectionIndex(1)));
    assert_eq!(venue.section_of(SeatIndex(826)), None);
    assert_eq!(name(826), "?-?-826");
    assert_eq!(name(u32::MAX), "?-?-4294967295");
}

#[test]
fn only_the_canonical_name_of_a_seat_is_taken() {
    let venue = venue();
    assert_eq!(venue.seat_named("F1-B-14"), Some(SeatIndex(25)));
    assert_eq!(venue.seat_named("PIT-000500"), Some(SeatIndex(525)));
    for name in [
        "",
        "-",
        "--",
        "F1",
        "F1-",
        "F1-A",
        "F1-A-",
        "F1-A-0",
        "F1-A-012",
        "F1-A-+1",
        "F1-A--1",
        "F1-A-13",
        "F1-A-1-",
        "F1-A-1 ",
        " F1-A-1",
        "f1-A-1",
        "F1-C-1",
        "F2-A-1",
        "F1-A-1e0",
        "F1-A-4294967297",
        "F1-A-99999999999999999999",
        "F1-A-１",
        "PIT-1",
        "PIT-00001",
        "PIT-000000",
        "PIT-000501",
        "PIT-0000001",
        "PIT-+00001",
        "PIT-A-1",
        "PIT-",
        "나-A-11",
    ] {
        assert_eq!(venue.seat_named(name), None, "{name}");
    }
}

#[test]
fn grid_rows_are_named_like_the_columns_of_a_spreadsheet() {
    let venue = Layout::build(&[grid("S", 703, 1)]).unwrap();
    let names: Vec<&str> = venue.rows().iter().map(|row| &*row.name).collect();
    assert_eq!(names[..3], ["A", "B", "C"]);
    assert_eq!(names[25..28], ["Z", "AA", "AB"]);
    assert_eq!(names[701..], ["ZZ", "AAA"]);
}

#[test]
fn rows_are_centred_on_the_widest_unless_placed() {
    let placed = RowSpec {
        x: Some(40.0),
        y: Some(-2.5),
        ..row("C", 3)
    };
    let rows = SectionShape::Rows(vec![row("A", 4), row("B", 10), placed]);
    let spec = SectionSpec {
        x: 100.0,
        y: 7.0,
        ..section("S", rows)
    };
    let venue = Layout::build(&[spec]).unwrap();
    assert_eq!(venue.position_of(SeatIndex(0)), (103.0, 7.0));
    assert_eq!(venue.position_of(SeatIndex(13)), (109.0, 8.0));
    assert_eq!(venue.position_of(SeatIndex(14)), (40.0, -2.5));
    assert_eq!(venue.position_of(SeatIndex(17)), (0.0, 0.0));
    // The placed row is the nearest to the stage.
    let depths: Vec<u32> = venue.rows().iter().map(|row| row.depth).collect();
    assert_eq!(depths, [1, 2, 0]);
}

#[test]
fn rows_side_by_side_are_equally_deep() {
    let at = |name, y| RowSpec {
        y: Some(y),
        ..row(name, 5)
    };
    let rows = vec![at("A1", 0.0), at("A2", -0.0), at("B1", 1.0), at("B2", 1.0)];
    let venue = Layout::build(&[section("S", SectionShape::Rows(rows))]).unwrap();
    let depths: Vec<u32> = venue.rows().iter().map(|row| row.depth).collect();
    assert_eq!(depths, [0, 0, 1, 1]);
}

#[track_caller]
fn refused(specs: &[SectionSpec], field: &str, problem: fn(String) -> LayoutProblem) {
    assert_eq!(Layout::build(specs), Err(problem(field.to_owned())));
}

#[test]
fn names_are_letters_and_digits_and_unique() {
    let bad = |field| LayoutProblem::BadName { field };
    let twice = |field| LayoutProblem::DuplicateName { field };
    let long = "x".repeat(NAME_CHARS_MAX + 1);
    for name in ["", "A-1", "A 1", "A\0", "é!", &long] {
        refused(
            &[grid("A", 1, 1), grid(name, 1, 1)],
            "sections[1].name",
            bad,
        );
        let rows = SectionShape::Rows(vec![row("1", 1), row(name, 1)]);
        refused(&[section("A", rows)], "sections[0].rows[1].name", bad);
    }
    refused(
        &[grid("A", 1, 1), pit("B", 1), pit("A", 1)],
        "sections[2].name",
        twice,
    );
    let rows = SectionShape::Rows(vec![row("1", 1), row("2", 1), row("2", 1), row("1", 1)]);
    refused(&[section("A", rows)], "sections[0].rows[2].name", twice);
    // The same row name in two sections is fine, and so is any script.
    Layout::build(&[
        grid("가나다٣", 1, 1),
        grid(&"é".repeat(NAME_CHARS_MAX), 1, 1),
    ])
    .unwrap();
}

#[test]
fn there_is_at_least_one_of_everything() {
    let none = |field| LayoutProblem::None { field };
    refused(&[], "sections", none);
    refused(&[pit("A", 0)], "sections[0].general_admission", none);
    refused(&[grid("A", 0, 1)], "sections[0].grid.rows", none);
    refused(&[grid("A", 1, 0)], "sections[0].grid.seats_per_row", none);
    refused(
        &[section("A", SectionShape::Rows(vec![]))],
        "sections[0].rows",
        none,
    );
    let rows = SectionShape::Rows(vec![row("1", 1), row("2", 0)]);
    refused(&[section("A", rows)], "sections[0].rows[1].seats", none);
}

#[test]
fn absurd_counts_are_refused_without_overflow() {
    let field_of = |specs: &[SectionSpec]| Layout::build(specs).unwrap_err().field().to_owned();
    let max = u32::MAX;
    assert_eq!(field_of(&[grid("A", max, max)]), "sections[0].grid.rows");
    assert_eq!(
        field_of(&[grid("A", 1, max)]),
        "sections[0].grid.seats_per_row"
    );
    assert_eq!(
        field_of(&[grid("A", 10_000, 10_000)]),
        "sections[0].grid.seats_per_row"
    );
    assert_eq!(field_of(&[pit("A", max)]), "sections[0].general_admission");
    assert_eq!(
        field_of(&[pit("A", CAPACITY_MAX), pit("B", 1)]),
        "sections[1].general_admission"
    );
    let rows = SectionShape::Rows(vec![row("1", max), row("2", max)]);
    assert_eq!(field_of(&[section("A", rows)]), "sections[0].rows[0].seats");
    let rows = SectionShape::Rows(vec![row("1", 1); 10_001]);
    assert_eq!(field_of(&[section("A", rows)]), "sections[0].rows");
    assert_eq!(field_of(&vec![pit("A", 1); 1_001]), "sections");
    assert_eq!(
        Layout::build(&[pit("A", CAPACITY_MAX)]).unwrap().capacity(),
        CAPACITY_MAX
    );
}

#[test]
fn coordinates_are_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.1e6] {
        let spec = SectionSpec {
            y: value,
            ..pit("A", 1)
        };
        assert_eq!(Layout::build(&[spec]).unwrap_err().field(), "sections[0].y");
        let rows = SectionShape::Rows(vec![RowSpec {
            x: Some(value),
            ..row("1", 1)
        }]);
        let problem = Layout::build(&[section("A", rows)]).unwrap_err();
        assert_eq!(problem.field(), "sections[0].rows[0].x");
    }
}

#[test]
fn a_description_survives_its_json() {
    let rows = vec![RowSpec {
        x: Some(0.1),
        ..row("A", 3)
    }];
    let specs = vec![
        section("F1", SectionShape::Rows(rows)),
        grid("나", 30, 10),
        pit("PIT", 500),
    ];
    let json = serde_json::to_string(&specs).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<SectionSpec>>(&json).unwrap(),
        specs
    );
    // What the store may hold: members with defaults left out.
    let short = r#"[{"name":"PIT","shape":{"general_admission":{"units":500}}}]"#;
    assert_eq!(
        serde_json::from_str::<Vec<SectionSpec>>(short).unwrap(),
        specs[2..]
    );
}

/// Any small venue that keeps the rules.
fn any_specs() -> impl Strategy<Value = Vec<SectionSpec>> {
    let shape = prop_oneof![
        prop::collection::vec(1..30u32, 1..6).prop_map(|seats| {
            let rows = seats.iter().enumerate();
            SectionShape::Rows(
                rows.map(|(at, n)| row(&format!("r{}", 97 * at % 11), *n))
                    .collect(),
            )
        }),
        (1..30u32, 1..12u32).prop_map(|(rows, seats_per_row)| SectionShape::Grid {
            rows,
            seats_per_row
        }),
        (1..200u32).prop_map(|units| SectionShape::GeneralAdmission { units }),
    ];
    prop::collection::vec(shape, 1..8).prop_map(|shapes| {
        let shapes = shapes.into_iter().enumerate();
        shapes
            .map(|(at, shape)| section(&format!("s{}", 97 * at % 13), shape))
            .collect()
    })
}

proptest! {
    #[test]
    fn every_seat_has_one_name_and_every_name_one_seat(specs in any_specs()) {
        let venue = Layout::build(&specs).unwrap();
        let mut names = HashSet::new();
        for seat in (0..venue.capacity()).map(SeatIndex) {
            let name = venue.name_of(seat).to_string();
            prop_assert_eq!(venue.seat_named(&name), Some(seat));
            let section = venue.section_of(seat).unwrap();
            let in_section = venue.section(section).unwrap();
            prop_assert!(in_section.first <= seat && seat.0 < in_section.first.0 + in_section.seats);
            prop_assert_eq!(venue.section_named(&in_section.name), Some(section));
            let row = venue.row_of(seat);
            prop_assert_eq!(row.is_none(), in_section.general_admission);
            prop_assert!(row.is_none_or(|row| in_section.rows.contains(&row.0)));
            prop_assert!(names.insert(name));
        }
        prop_assert_eq!(venue.row_of(SeatIndex(venue.capacity())), None);
    }

    #[test]
    fn no_text_makes_a_lookup_fail_badly(text in "\\PC{0,3}-?\\PC{0,3}-?[-+0-9a-z]{0,12}") {
        let venue = venue();
        if let Some(seat) = venue.seat_named(&text) {
            prop_assert_eq!(venue.name_of(seat).to_string(), text);
        }
    }
}
