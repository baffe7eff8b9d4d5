//! `onsale verify-draw`: makes a published draw again, from nothing but what
//! the server publishes.
//!
//! It trusts nobody: the numbers are made anew from the seed and the tickets,
//! and whoever noted the commitment before the opening can hold the server to
//! it.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::domain::ids::PerformanceId;
use crate::domain::queue::draw::{Digest, Draw, DrawFault, verify};

/// How long an answer may take: the draw of a million entrants has 80 MB.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// The longest answer that is read, in bytes: ten million entrants.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Performances are listed by so many at a time.
const PAGE: usize = 100;

/// Where the draws are, and what is known of them.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Where the server is; `None` for a file.
    pub source: Source<'a>,
    /// What the commitment must be, as noted before the opening.
    pub commitment: Option<Digest>,
}

/// Where a draw comes from.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// The server at this address: one performance, or all that are listed.
    Server(&'a str, Option<PerformanceId>),
    /// The body of `GET …/queue/draw`, saved by somebody; `-` is stdin.
    File(&'a Path),
}

/// What was found of one draw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Of what, for a person.
    pub of: String,
    /// How many took part.
    pub entrants: usize,
    /// The first and the last number; `None` if nobody took part.
    pub numbers: Option<(u32, u32)>,
    /// What is wrong, if anything.
    pub fault: Option<Fault>,
}

/// What is wrong with a draw that was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It contradicts itself.
    #[error(transparent)]
    Draw(DrawFault),
    /// The seed was changed together with its commitment.
    #[error("the commitment is {published}, but {noted} was noted before")]
    OtherCommitment {
        /// Now.
        published: Digest,
        /// Then.
        noted: Digest,
    },
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Of the draws that have taken place.
    pub verdicts: Vec<Verdict>,
    /// How many haven't.
    pub pending: usize,
}

impl Report {
    /// 0: each draw is true; 1: at least one isn't; 2: there was none to check.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match () {
            () if self.verdicts.iter().any(|verdict| verdict.fault.is_some()) => 1,
            () if self.verdicts.is_empty() => 2,
            () => 0,
        }
    }

    fn add(&mut self, of: String, draw: &Draw, noted: Option<Digest>) {
        let fault = match verify(draw) {
            Err(DrawFault::NotDrawn) => {
                // Half a draw is a tampered one.
                if draw.seed.is_none() && draw.entrants.is_empty() {
                    self.pending += 1;
                    return;
                }
                Some(Fault::Draw(DrawFault::NotDrawn))
            }
            Err(fault) => Some(Fault::Draw(fault)),
            Ok(()) => noted
                .filter(|noted| *noted != draw.commitment)
                .map(|noted| Fault::OtherCommitment {
                    published: draw.commitment,
                    noted,
                }),
        };
        let first = draw.entrants.first().map(|entrant| entrant.number.0);
        let last = draw.entrants.last().map(|entrant| entrant.number.0);
        self.verdicts.push(Verdict {
            of,
            entrants: draw.entrants.len(),
            numbers: first.zip(last),
            fault,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.verdicts {
            let Verdict {
                of,
                entrants,
                numbers,
                fault,
            } = verdict;
            let range = numbers.map_or(String::new(), |(a, b)| format!(", numbers {a} to {b}"));
            match fault {
                None => writeln!(
                    f,
                    "{of}: TRUE. {entrants} entrants{range}: the seed is the one committed to, \
                     the list is the one hashed, every number follows from its rank."
                )?,
                Some(fault) => writeln!(f, "{of}: TAMPERED. {entrants} entrants{range}: {fault}.")?,
            }
        }
        let tampered = self.verdicts.iter().filter(|v| v.fault.is_some()).count();
        writeln!(
            f,
            "{} draws checked: {} true, {tampered} tampered; {} have not taken place",
            self.verdicts.len(),
            self.verdicts.len() - tampered,
            self.pending
        )
    }
}

/// Checks what `question` asks for.
///
/// # Errors
/// If a draw can't be read: one line for a person.
pub async fn run(question: &Question<'_>) -> Result<Report, String> {
    let mut report = Report::default();
    match question.source {
        Source::File(path) => {
            let draw = read_draw(&path.display(), &file(path)?)?;
            report.add(path.display().to_string(), &draw, question.commitment);
        }
        Source::Server(url, Some(id)) => {
            let draw = Server::at(url)?.draw(id).await?;
            let draw = draw.ok_or_else(|| format!("performance {id} has no lottery"))?;
            report.add(format!("performance {id}"), &draw, question.commitment);
        }
        Source::Server(url, None) => {
            let server = Server::at(url)?;
            for id in server.performances().await? {
                if let Some(draw) = server.draw(id).await? {
                    report.add(format!("performance {id}"), &draw, question.commitment);
                }
            }
        }
    }
    Ok(report)
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    let line = |error: std::io::Error| format!("{}: {error}", path.display());
    if path != Path::new("-") {
        return std::fs::read(path).map_err(line);
    }
    let mut text = Vec::new();
    let mut input = std::io::stdin().lock().take(ANSWER_BYTES_MAX as u64);
    input.read_to_end(&mut text).map_err(line)?;
    Ok(text)
}

fn read_draw(of: &dyn fmt::Display, text: &[u8]) -> Result<Draw, String> {
    serde_json::from_slice(text).map_err(|error| format!("{of}: not a draw: {error}"))
}

/// The server that publishes draws.
struct Server<'a> {
    client: reqwest::Client,
    base: &'a str,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Listed>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    performance_id: PerformanceId,
}

impl<'a> Server<'a> {
    fn at(url: &'a str) -> Result<Self, String> {
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build();
        Ok(Self {
            client: client.map_err(|error| error.to_string())?,
            base: url.trim_end_matches('/'),
        })
    }

    /// All that are listed; in the order of the list.
    async fn performances(&self) -> Result<Vec<PerformanceId>, String> {
        let mut ids = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("/performances?limit={PAGE}");
            if let Some(cursor) = &cursor {
                path.push_str("&cursor=");
                // Cursors need no percent-encoding.
                path.push_str(cursor);
            }
            let Some(body) = self.get(&path).await? else {
                return Err(format!("{}{path}: nothing there", self.base));
            };
            let page: Page =
                serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))?;
            ids.extend(page.items.into_iter().map(|listed| listed.performance_id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(ids);
            }
        }
    }

    /// The draw of a performance; `None` if it has no lottery.
    async fn draw(&self, id: PerformanceId) -> Result<Option<Draw>, String> {
        let path = format!("/performances/{id}/queue/draw");
        let body = self.get(&path).await?;
        body.map(|body| read_draw(&path, &body)).transpose()
    }

    /// The body of the answer; `None` for a 404.
    async fn get(&self, path: &str) -> Result<Option<Bytes>, String> {
        let url = format!("{}/api/v1{path}", self.base);
        let line = |error: reqwest::Error| format!("{url}: {}", whole(&error));
        let mut answer = self.client.get(&url).send().await.map_err(line)?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => return Err(format!("{url}: answered {status}")),
        }
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(line)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(format!("{url}: more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Some(body.freeze()))
    }
}

/// An error with its causes, which reqwest doesn't tell by itself.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::QueueTicketId;
    use crate::domain::queue::TicketNumber;
    use crate::domain::queue::draw::{Entrant, Ranks, Seed, entrants_hash};

    /// A true draw of `count` entrants, as the server publishes it.
    fn drawn(count: u32) -> Value {
        let seed = Seed([7; 32]);
        let ranks = Ranks::new(&seed);
        let mut tickets: Vec<_> = (0..count)
            .map(|_| QueueTicketId(Uuid::now_v7()))
            .map(|ticket| (ranks.of(ticket), ticket))
            .collect();
        tickets.sort_unstable();
        let numbers = (1..).map(TicketNumber);
        let entrants: Arc<[Entrant]> = tickets
            .iter()
            .zip(numbers)
            .map(|((_, ticket_id), number)| Entrant {
                ticket_id: *ticket_id,
                number,
            })
            .collect();
        let draw = Draw {
            commitment: seed.commitment(),
            seed: Some(seed),
            beacon: None,
            entrants_hash: Some(entrants_hash(entrants.iter().map(|e| e.ticket_id))),
            entrants,
        };
        serde_json::to_value(draw).unwrap()
    }

    fn pending() -> Value {
        json!({ "commitment": Seed([7; 32]).commitment(), "seed": null, "beacon": null,
            "entrants_hash": null, "entrants": [] })
    }

    /// A server that publishes these draws; its address and the performances.
    async fn publishing(draws: Vec<Option<Value>>) -> (String, Vec<PerformanceId>) {
        let ids: Vec<_> = draws
            .iter()
            .map(|_| PerformanceId(Uuid::now_v7()))
            .collect();
        let mut router = Router::new();
        for (id, draw) in ids.iter().zip(draws) {
            let path = format!("/api/v1/performances/{id}/queue/draw");
            let answer = async move || draw.map(axum::Json).ok_or(StatusCode::NOT_FOUND);
            router = router.route(&path, get(answer));
        }
        let items: Vec<_> = ids
            .iter()
            .map(|id| json!({ "performance_id": id }))
            .collect();
        let list = async move |query: axum::extract::RawQuery| {
            // Two pages.
            let is_second = query.0.is_some_and(|query| query.contains("cursor=next"));
            let (first, second) = items.split_at(items.len().min(1));
            let (items, next) = if is_second {
                (second, Value::Null)
            } else {
                (first, json!("next"))
            };
            axum::Json(json!({ "items": items, "next_cursor": next }))
        };
        router = router.route("/api/v1/performances", get(list));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, ids)
    }

    async fn check(draw: Value, commitment: Option<Digest>) -> Report {
        let (url, ids) = publishing(vec![Some(draw)]).await;
        let source = Source::Server(&url, Some(ids[0]));
        run(&Question { source, commitment }).await.unwrap()
    }

    #[tokio::test]
    async fn a_true_draw_is_found_true_and_counted() {
        let report = check(drawn(50), Some(Seed([7; 32]).commitment())).await;
        assert_eq!(report.exit(), 0);
        assert_eq!(report.verdicts[0].numbers, Some((1, 50)));
        let text = report.to_string();
        assert!(
            text.contains("TRUE") && text.contains("50 entrants"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn each_way_to_tamper_is_found_out() {
        let swap = |draw: &mut Value| {
            let entrants = draw["entrants"].as_array_mut().unwrap();
            let first = entrants[0]["ticket_id"].take();
            entrants[0]["ticket_id"] = entrants[30]["ticket_id"].take();
            entrants[30]["ticket_id"] = first;
        };
        let remove = |draw: &mut Value| {
            draw["entrants"].as_array_mut().unwrap().pop();
        };
        let add = |draw: &mut Value| {
            let friend = json!({ "ticket_id": Uuid::now_v7(), "number": 51 });
            draw["entrants"].as_array_mut().unwrap().push(friend);
        };
        let skip = |draw: &mut Value| draw["entrants"][49]["number"] = json!(60);
        let reseed = |draw: &mut Value| draw["seed"] = json!("ab".repeat(32));
        let hide = |draw: &mut Value| draw["seed"] = Value::Null;
        let beacon = |draw: &mut Value| draw["beacon"] = json!("chosen afterwards");
        let ways: [&dyn Fn(&mut Value); 7] = [&swap, &remove, &add, &skip, &reseed, &hide, &beacon];
        for (way, tamper) in ways.iter().enumerate() {
            let mut draw = drawn(50);
            tamper(&mut draw);
            let report = check(draw, None).await;
            assert_eq!(report.exit(), 1, "way {way}: {report}");
            assert!(report.to_string().contains("TAMPERED"), "way {way}");
        }
    }

    #[tokio::test]
    async fn a_whole_other_draw_is_found_out_by_the_commitment_that_was_noted() {
        let report = check(drawn(5), Some(Digest([1; 32]))).await;
        assert_eq!(report.exit(), 1, "{report}");
    }

    #[tokio::test]
    async fn without_a_performance_all_listed_ones_are_checked() {
        let mut tampered = drawn(3);
        tampered["entrants"][0]["number"] = json!(9);
        let draws = vec![Some(drawn(3)), None, Some(pending()), Some(tampered)];
        let (url, _) = publishing(draws).await;
        let source = Source::Server(&url, None);
        let commitment = None;
        let report = run(&Question { source, commitment }).await.unwrap();
        assert_eq!((report.verdicts.len(), report.pending), (2, 1));
        assert_eq!(report.exit(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_checked_is_neither_true_nor_tampered() {
        let report = check(pending(), None).await;
        assert_eq!((report.exit(), report.pending), (2, 1));
        let (url, ids) = publishing(vec![None]).await;
        let commitment = None;
        let source = Source::Server(&url, Some(ids[0]));
        assert!(run(&Question { source, commitment }).await.is_err());
        let source = Source::Server("http://127.0.0.1:1", None);
        assert!(run(&Question { source, commitment }).await.is_err());
    }
}
