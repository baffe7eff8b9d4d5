//! Venues and performances for tests.

use serde_json::{Value, json};

use super::client::Client;
use super::{DAY, in_seconds};

/// A performance that is to be made.
#[derive(Clone)]
pub(crate) struct Show {
    /// The sections of its venue.
    pub(crate) sections: Value,
    /// The body of `POST /admin/performances`, but for the venue.
    pub(crate) body: Value,
}

impl Show {
    /// On sale now, in a small theatre: `F1` has the rows `A` and `B` of 10
    /// (VIP), `G` is a grid of 4 rows of 10 (R), `PIT` has 20 units (STANDING).
    pub(crate) fn small() -> Self {
        Self::in_venue(
            json!([
                { "name": "F1", "rows": [{ "name": "A", "seats": 10 }, { "name": "B", "seats": 10 }] },
                { "name": "G", "grid": { "rows": 4, "seats_per_row": 10 } },
                { "name": "PIT", "general_admission": 20 },
            ]),
            &json!([
                { "name": "VIP", "price": 150_000, "sections": ["F1"] },
                { "name": "R", "price": 90_000, "sections": ["G"] },
                { "name": "STANDING", "price": 70_000, "sections": ["PIT"] },
            ]),
        )
    }

    /// On sale now, one section `G` with a grid of seats at one price.
    pub(crate) fn grid(rows: u32, seats_per_row: u32, price: i64) -> Self {
        Self::in_venue(
            json!([{ "name": "G", "grid": { "rows": rows, "seats_per_row": seats_per_row } }]),
            &json!([{ "name": "R", "price": price, "sections": ["G"] }]),
        )
    }

    /// On sale now, one section `PIT` without numbered seats.
    pub(crate) fn general_admission(units: u32, price: i64) -> Self {
        Self::in_venue(
            json!([{ "name": "PIT", "general_admission": units }]),
            &json!([{ "name": "STANDING", "price": price, "sections": ["PIT"] }]),
        )
    }

    fn in_venue(sections: Value, grades: &Value) -> Self {
        Self {
            sections,
            body: json!({
                "title": "The Nutcracker",
                "category": "ballet",
                "cast": ["Clara", "Drosselmeyer"],
                "description": "In two acts.",
                "currency": "KRW",
                "grades": grades,
                "opens_at": in_seconds(-3_600),
                "closes_at": in_seconds(20 * DAY),
                "limits": {},
                "queue": null,
                "timetables": [{ "starts_at": in_seconds(30 * DAY), "doors_at": in_seconds(30 * DAY - 3_600) }],
            }),
        }
    }

    /// With another value of a member of the performance.
    pub(crate) fn with(mut self, member: &str, value: Value) -> Self {
        self.body[member] = value;
        self
    }

    /// With one of the `limits`.
    pub(crate) fn limit(mut self, name: &str, value: i64) -> Self {
        self.body["limits"][name] = value.into();
        self
    }

    /// With so many dates, a day apart.
    pub(crate) fn dates(self, count: i64) -> Self {
        let dates: Vec<Value> = (0..count)
            .map(|day| {
                let starts = (30 + day) * DAY;
                json!({ "starts_at": in_seconds(starts), "doors_at": in_seconds(starts - 3_600) })
            })
            .collect();
        self.with("timetables", dates.into())
    }

    /// Makes the venue and the performance.
    pub(crate) async fn open(&self, admin: &Client) -> Scene {
        let venue = self.build_venue(admin).await;
        let mut body = self.body.clone();
        body["venue_id"] = venue["venue_id"].clone();
        let performance = admin.post("/admin/performances", &body).ok(201).await;
        Scene::of(&venue, performance)
    }

    /// Makes the venue alone.
    pub(crate) async fn build_venue(&self, admin: &Client) -> Value {
        let venue = json!({ "name": "Arts Centre", "sections": self.sections });
        admin.post("/admin/venues", &venue).ok(201).await
    }
}

/// A performance that exists.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) venue: String,
    pub(crate) performance: String,
    /// Of its first date.
    pub(crate) timetable: String,
    /// The answer to its creation.
    pub(crate) created: Value,
}

impl Scene {
    fn of(venue: &Value, created: Value) -> Self {
        let text = |value: &Value| value.as_str().expect("an id").to_owned();
        Self {
            venue: text(&venue["venue_id"]),
            performance: text(&created["performance_id"]),
            timetable: text(&created["timetables"][0]["timetable_id"]),
            created,
        }
    }

    /// The timetable of the date at `index`.
    pub(crate) fn timetable_at(&self, index: usize) -> String {
        let id = &self.created["timetables"][index]["timetable_id"];
        id.as_str().expect("an id").to_owned()
    }

    /// The performance as the public sees it.
    pub(crate) async fn read(&self, client: &Client) -> Value {
        client
            .get(&format!("/performances/{}", self.performance))
            .ok(200)
            .await
    }
}
