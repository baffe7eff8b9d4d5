//! `onsale-load arena`: a venue and a performance on sale, to be sold out.

use clap::Args;
use onsale::clock::Clock;
use onsale::domain::time::Millis;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::BASE;
use crate::client::{Request, Target};
use crate::pool::Pool;

/// A section of a venue made here: 20 rows of 50 seats.
const SECTION_SEATS: u32 = 1_000;
const ROW_SEATS: u32 = 50;
/// Grades and their prices in won, from the stage to the back.
const GRADES: [(&str, i64); 3] = [("VIP", 150_000), ("R", 110_000), ("S", 70_000)];
/// In how many days the first date is, and in how many the sale closes.
const FIRST_DATE_DAYS: u32 = 60;
const CLOSES_DAYS: u32 = 50;
const DAY_SECONDS: u32 = 86_400;

#[derive(Debug, Args)]
pub(crate) struct ArenaArgs {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The administrator who makes it.
    #[arg(long, env = "ONSALE_ADMIN_EMAIL")]
    email: String,
    /// The administrator's password.
    #[arg(long, env = "ONSALE_ADMIN_PASSWORD", hide_env_values = true)]
    password: String,
    #[command(flatten)]
    arena: Arena,
}

/// What is made.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arena {
    /// How many seats.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) seats: u32,
    /// How many dates, a day apart.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) timetables: u32,
    /// How many seats one user may have on one date.
    #[arg(long, default_value_t = 4)]
    pub(crate) max_seats_per_user: u32,
    /// One price for all seats, instead of three grades.
    #[arg(long)]
    pub(crate) price: Option<i64>,
    /// The waiting room before it: a policy as JSON.
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    pub(crate) queue: Option<Value>,
}

#[derive(Deserialize)]
struct Session {
    access_token: String,
}

#[derive(Deserialize)]
struct Venue {
    venue_id: String,
}

#[derive(Deserialize)]
struct Performance {
    timetables: Vec<Timetable>,
}

#[derive(Deserialize)]
struct Timetable {
    timetable_id: String,
}

/// Makes it and tells the timetables.
///
/// # Errors
/// A line for a person.
pub(crate) async fn arena(args: ArenaArgs) -> Result<(), String> {
    let pool = Pool::new(Target::of(&args.url).await?, 1);
    let timetables = open(&pool, &args.email, &args.password, &args.arena).await?;
    for timetable in timetables {
        println!("{timetable}");
    }
    Ok(())
}

/// Signs in, makes the venue and the performance; returns its timetables.
///
/// # Errors
/// A line for a person.
pub(crate) async fn open(
    pool: &Pool,
    email: &str,
    password: &str,
    arena: &Arena,
) -> Result<Vec<String>, String> {
    let body = json!({ "email": email, "password": password }).to_string();
    let path = format!("{BASE}/sessions");
    let session: Session = pool
        .expect(200, &Request::post(&path, body.as_bytes()))
        .await?;
    let token = &session.access_token;
    let path = format!("{BASE}/admin/venues");
    let body = venue(arena.seats).to_string();
    let made = Request::post(&path, body.as_bytes()).by(token);
    let venue: Venue = pool.expect(201, &made).await?;
    let path = format!("{BASE}/admin/performances");
    let body = performance(&venue.venue_id, arena).to_string();
    let made = Request::post(&path, body.as_bytes()).by(token);
    let performance: Performance = pool.expect(201, &made).await?;
    let ids = performance.timetables.into_iter();
    Ok(ids.map(|timetable| timetable.timetable_id).collect())
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn section_count(seats: u32) -> u32 {
    seats.div_ceil(SECTION_SEATS)
}

fn venue(seats: u32) -> Value {
    let sections: Vec<Value> = (0..section_count(seats))
        .map(|index| {
            let seats = (seats - index * SECTION_SEATS).min(SECTION_SEATS);
            let rows: Vec<Value> = (0..seats.div_ceil(ROW_SEATS))
                .map(|row| {
                    let in_row = (seats - row * ROW_SEATS).min(ROW_SEATS);
                    json!({ "name": (row + 1).to_string(), "seats": in_row })
                })
                .collect();
            json!({ "name": section_name(index), "rows": rows })
        })
        .collect();
    json!({ "name": "Load arena", "sections": sections })
}

fn section_name(index: u32) -> String {
    format!("F{}", index + 1)
}

fn performance(venue_id: &str, arena: &Arena) -> Value {
    let now = Clock::system().now();
    let in_days = |days: u32| now.plus(Millis::from_secs(days * DAY_SECONDS));
    let timetables: Vec<Value> = (0..arena.timetables)
        .map(|date| {
            let at = in_days(FIRST_DATE_DAYS + date);
            json!({ "starts_at": at, "doors_at": at })
        })
        .collect();
    json!({
        "title": format!("Load test of {} seats", arena.seats),
        "category": "load-test",
        "cast": ["Nobody"],
        "description": "Made by onsale-load.",
        "venue_id": venue_id,
        "currency": "KRW",
        "grades": grades(arena),
        "opens_at": now.plus(Millis(-1_000)),
        "closes_at": in_days(CLOSES_DAYS),
        "limits": { "max_seats_per_user": arena.max_seats_per_user },
        "queue": arena.queue,
        "timetables": timetables,
    })
}

/// The sections divided among the grades, front to back.
fn grades(arena: &Arena) -> Vec<Value> {
    let sections: Vec<String> = (0..section_count(arena.seats)).map(section_name).collect();
    if let Some(price) = arena.price {
        return vec![json!({ "name": "ALL", "price": price, "sections": sections })];
    }
    let each = sections.len().div_ceil(GRADES.len());
    GRADES
        .iter()
        .zip(sections.chunks(each))
        .map(|((name, price), sections)| {
            json!({ "name": name, "price": price, "sections": sections })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_has_just_the_seats_that_were_asked_for_and_each_section_a_grade() {
        for seats in [1, 49, 50, 1_000, 1_001, 2_030, 20_000] {
            let venue = venue(seats);
            let sections = venue["sections"].as_array().unwrap();
            let rows = sections.iter().flat_map(|s| s["rows"].as_array().unwrap());
            let sum: u64 = rows.map(|row| row["seats"].as_u64().unwrap()).sum();
            assert_eq!(sum, u64::from(seats));
            let arena = Arena {
                seats,
                timetables: 2,
                max_seats_per_user: 4,
                price: None,
                queue: None,
            };
            let performance = performance("venue", &arena);
            let grades = performance["grades"].as_array().unwrap();
            let graded: usize = grades
                .iter()
                .map(|grade| grade["sections"].as_array().unwrap().len())
                .sum();
            assert_eq!(graded, sections.len());
            assert_eq!(performance["timetables"].as_array().unwrap().len(), 2);
        }
    }
}
