//! The seat map as buyers see it in their browsers: the layout once, then what
//! has changed. One copy serves all buyers of the run; it is refreshed as often
//! as one browser would do it, so buyers click on seats that are gone meanwhile.

use std::collections::HashMap;

use crate::api::{Layout, Seats};
use crate::random::Random;

/// How often a buyer who finds no neighbours at one place looks at another.
const LOOKS_MAX: usize = 8;

const FREE: u8 = b'A';
const HELD: u8 = b'H';

/// Seats by their place in the layout.
#[derive(Debug)]
pub(crate) struct SeatMap {
    /// `None`: a unit of a general-admission section, which nobody clicks on.
    seats: Vec<Option<Seat>>,
    places: HashMap<String, usize>,
    statuses: Vec<u8>,
    version: u64,
    /// The general-admission sections, with their capacity.
    standing: Vec<(String, u32)>,
}

#[derive(Debug)]
struct Seat {
    id: String,
    row: u32,
}

impl SeatMap {
    /// With all seats taken until [`Self::update`].
    pub(crate) fn new(layout: Layout) -> Self {
        let mut map = Self {
            seats: Vec::new(),
            places: HashMap::new(),
            statuses: Vec::new(),
            version: 0,
            standing: Vec::new(),
        };
        let mut row_number = 0;
        for section in layout.sections {
            if section.general_admission {
                let units = section.units.unwrap_or(0);
                map.seats.extend((0..units).map(|_| None));
                map.standing.push((section.name, units));
                continue;
            }
            for row in section.rows {
                row_number += 1;
                for seat in row.seats {
                    map.places.insert(seat.seat_id.clone(), map.seats.len());
                    map.seats.push(Some(Seat {
                        id: seat.seat_id,
                        row: row_number,
                    }));
                }
            }
        }
        map.statuses = vec![HELD; map.seats.len()];
        map
    }

    /// What to ask for changes since.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes in an answer of `GET /timetables/{id}/seats`.
    pub(crate) fn update(&mut self, seats: &Seats) {
        if seats.version < self.version {
            return;
        }
        self.version = seats.version;
        if let Some(statuses) = &seats.statuses {
            self.statuses = statuses.clone().into_bytes();
        }
        for (place, status) in seats.changes.iter().flatten() {
            if let (Some(seat), Some(byte)) = (self.statuses.get_mut(*place), status.bytes().next())
            {
                *seat = byte;
            }
        }
    }

    /// The server said that these are taken.
    pub(crate) fn taken(&mut self, seats: &[String]) {
        for seat in seats {
            if let Some(place) = self.places.get(seat)
                && let Some(status) = self.statuses.get_mut(*place)
            {
                *status = HELD;
            }
        }
    }

    /// The section without numbered seats that a buyer wants to stand in, as
    /// often as such places are among all.
    pub(crate) fn standing(&self, random: &mut Random) -> Option<&str> {
        let mut place = random.below(self.seats.len());
        for (name, units) in &self.standing {
            let units = *units as usize;
            if place < units {
                return Some(name);
            }
            place -= units;
        }
        None
    }

    /// `count` free seats that a buyer would click on: side by side somewhere,
    /// else any. Fewer if there are fewer.
    pub(crate) fn pick(&self, count: usize, random: &mut Random) -> Vec<String> {
        for _ in 0..LOOKS_MAX {
            let start = random.below(self.seats.len());
            if let Some(found) = self.neighbours(start, count) {
                return found;
            }
        }
        let start = random.below(self.seats.len());
        let around = (start..self.seats.len()).chain(0..start);
        around
            .filter_map(|place| self.free(place))
            .take(count)
            .map(|seat| seat.id.clone())
            .collect()
    }

    /// The first `count` free seats side by side at or after `start`, within
    /// what one looks over at a glance.
    fn neighbours(&self, start: usize, count: usize) -> Option<Vec<String>> {
        const GLANCE: usize = 256;
        let mut run: Vec<&Seat> = Vec::with_capacity(count);
        for place in start..(start + GLANCE).min(self.seats.len()) {
            match self.free(place) {
                Some(seat) => {
                    if run.last().is_some_and(|last| last.row != seat.row) {
                        run.clear();
                    }
                    run.push(seat);
                }
                None => run.clear(),
            }
            if run.len() == count {
                return Some(run.iter().map(|seat| seat.id.clone()).collect());
            }
        }
        None
    }

    fn free(&self, place: usize) -> Option<&Seat> {
        let free = self.statuses.get(place) == Some(&FREE);
        self.seats.get(place)?.as_ref().filter(|_| free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LayoutSeat, Row, Section};

    /// A section of two rows of three, and a pit of two units.
    fn map(statuses: &str) -> SeatMap {
        let row = |name: &str| Row {
            seats: (1..=3)
                .map(|number| LayoutSeat {
                    seat_id: format!("F-{name}-{number}"),
                })
                .collect(),
        };
        let section = |name: &str, rows, units: Option<u32>| Section {
            name: name.to_owned(),
            general_admission: units.is_some(),
            rows,
            units,
        };
        let mut map = SeatMap::new(Layout {
            sections: vec![
                section("PIT", vec![], Some(2)),
                section("F", vec![row("A"), row("B")], None),
            ],
        });
        map.update(&Seats {
            version: 1,
            statuses: Some(statuses.to_owned()),
            changes: None,
        });
        map
    }

    #[test]
    fn picked_seats_are_free_and_side_by_side_if_possible() {
        let mut random = Random::new(1);
        assert_eq!(map("AAHHAAAH").pick(2, &mut random), ["F-B-1", "F-B-2"]);
        // F-A-3 and F-B-1 are neighbours in the list only.
        let mut apart = map("AAHHAAHA").pick(2, &mut random);
        apart.sort_unstable();
        assert!(
            apart
                .iter()
                .all(|seat| ["F-A-3", "F-B-1", "F-B-3"].contains(&seat.as_str()))
        );
        assert_eq!(apart.len(), 2);
        assert_eq!(map("AAHHAHHH").pick(2, &mut random), ["F-A-3"]);
        assert!(map("AASSSSSS").pick(2, &mut random).is_empty());
    }

    #[test]
    fn changes_and_refusals_are_taken_in_and_older_answers_are_not() {
        let mut map = map("AAAHHHHH");
        map.update(&Seats {
            version: 5,
            statuses: None,
            changes: Some(vec![(2, "S".to_owned()), (7, "A".to_owned())]),
        });
        map.update(&Seats {
            version: 4,
            statuses: Some("AAAAAAAA".to_owned()),
            changes: None,
        });
        assert_eq!(map.version(), 5);
        assert_eq!(map.pick(3, &mut Random::new(1)), ["F-B-3"]);
        map.taken(&["F-B-3".to_owned(), "unknown".to_owned()]);
        assert!(map.pick(3, &mut Random::new(1)).is_empty());
    }

    #[test]
    fn buyers_stand_as_often_as_there_are_standing_places() {
        let map = map("AAAAAAAA");
        let mut random = Random::new(7);
        let standing = (0..1000)
            .filter(|_| map.standing(&mut random) == Some("PIT"))
            .count();
        assert!(
            (200..300).contains(&standing),
            "{standing} of 1000, expected 250"
        );
    }
}
