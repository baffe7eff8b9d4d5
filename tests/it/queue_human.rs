//! The door of the waiting room: an outside service that tells people from
//! programs, as a real little HTTP server, and its outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::future::join_all;
use onsale::config::{Config, OnOutage};
use parking_lot::Mutex;
use serde_json::json;

use crate::harness::{Answer, Client, Scene, Show, TestServer};

const HUMAN: &str = "human-check";
const SECRET: &str = "the secret & more";

/// How the service answers.
#[derive(Clone, Debug)]
enum Mood {
    /// Whoever has the token "person" passes.
    Well,
    /// The same, so much later.
    Slow(Duration),
    Status(u16),
    Text(&'static str),
}

#[derive(Debug)]
struct Service {
    mood: Mutex<Mood>,
    asked: AtomicUsize,
    asking: AtomicUsize,
    asking_max: AtomicUsize,
    bodies: Mutex<Vec<String>>,
}

impl Service {
    /// It, and where it is.
    async fn start(mood: Mood) -> (Arc<Self>, String) {
        let service = Arc::new(Self {
            mood: Mutex::new(mood),
            asked: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            asking_max: AtomicUsize::new(0),
            bodies: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/siteverify", listener.local_addr().unwrap());
        let routes = Router::new().route("/siteverify", post(verify));
        let routes = routes.with_state(Arc::clone(&service));
        tokio::spawn(async { axum::serve(listener, routes).await });
        (service, url)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

async fn verify(State(service): State<Arc<Service>>, body: String) -> (StatusCode, String) {
    service.asked.fetch_add(1, Ordering::SeqCst);
    let asking = service.asking.fetch_add(1, Ordering::SeqCst) + 1;
    service.asking_max.fetch_max(asking, Ordering::SeqCst);
    let is_person = body.contains("response=person");
    service.bodies.lock().push(body);
    let mood = service.mood.lock().clone();
    if let Mood::Slow(pause) = mood {
        tokio::time::sleep(pause).await;
    }
    service.asking.fetch_sub(1, Ordering::SeqCst);
    let verdict = json!({ "success": is_person, "hostname": "tickets.example" }).to_string();
    match mood {
        Mood::Well | Mood::Slow(_) => (StatusCode::OK, verdict),
        Mood::Status(status) => (StatusCode::from_u16(status).unwrap(), verdict),
        Mood::Text(text) => (StatusCode::OK, text.to_owned()),
    }
}

async fn server_at(url: &str, change: impl FnOnce(&mut Config)) -> (TestServer, Scene) {
    let server = TestServer::start_with(|config| {
        config.queue.human_check.url = url.to_owned();
        config.queue.human_check.secret = onsale::config::Secret::new(SECRET.to_owned());
        // A debug build beside others may take a while for anything.
        config.queue.human_check.timeout_ms = 5_000;
        change(config);
    })
    .await;
    let show = Show::small().with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    (server, scene)
}

fn queue(scene: &Scene) -> String {
    format!("/performances/{}/queue", scene.performance)
}

async fn join_as(buyer: &Client, scene: &Scene, token: &str) -> Answer {
    let call = buyer.post(&queue(scene), &json!({}));
    call.header(HUMAN, token).send().await
}

/// How many of this outcome this process has counted, over all servers in it.
async fn counted(server: &TestServer, outcome: &str) -> u64 {
    let metrics = server.anyone().root("/metrics").send().await.text();
    let name = format!("onsale_queue_human_checks_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_person_joins_a_program_does_not_and_who_has_a_place_is_not_asked_again() {
    let (service, url) = Service::start(Mood::Well).await;
    let (server, scene) = server_at(&url, |_| {}).await;
    let buyer = server.buyer();
    let without = buyer.post(&queue(&scene), &json!({}));
    without.problem(428, "human-check-required").await;
    assert_eq!(service.asked(), 0);
    let program = join_as(&buyer, &scene, "program").await;
    program.assert_problem(403, "human-check-failed");
    // Far too long to be passed on.
    let long = join_as(&buyer, &scene, &"x".repeat(9_000)).await;
    long.assert_problem(403, "human-check-failed");
    assert_eq!(service.asked(), 1);
    join_as(&buyer, &scene, "person").await.assert_status(201);
    let form = service.bodies.lock().last().cloned().unwrap();
    assert_eq!(form, "secret=the%20secret%20%26%20more&response=person");
    // A token is good once: a lost answer must not cost it.
    join_as(&buyer, &scene, "person").await.assert_status(200);
    buyer.post(&queue(&scene), &json!({})).ok(200).await;
    assert_eq!(service.asked(), 2);
}

#[tokio::test]
async fn while_the_service_is_away_people_get_in_unchecked_and_are_counted() {
    let (service, url) = Service::start(Mood::Status(500)).await;
    let (server, scene) = server_at(&url, |_| {}).await;
    let before = counted(&server, "failed-open").await;
    let moods = [
        Mood::Status(500),
        Mood::Status(403),
        Mood::Text("<html>busy</html>"),
        Mood::Text(r#"{"success": "yes"}"#),
        Mood::Text(r#"{"success": false, "error-codes": ["invalid-input-secret"]}"#),
    ];
    for mood in moods {
        service.becomes(mood.clone());
        let answer = join_as(&server.buyer(), &scene, "program").await;
        assert_eq!(answer.status, 201, "{mood:?}: {}", answer.text());
    }
    // Five in a row: it is left alone, whatever it would say.
    service.becomes(Mood::Well);
    let asked = service.asked();
    join_as(&server.buyer(), &scene, "program")
        .await
        .assert_status(201);
    // Who could not even get a token is let in, too.
    let without = server.buyer();
    without.post(&queue(&scene), &json!({})).ok(201).await;
    assert_eq!(service.asked(), asked);
    assert!(counted(&server, "failed-open").await >= before + 7);
}

#[tokio::test]
async fn a_service_that_is_down_or_too_slow_is_away() {
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/siteverify", listener.local_addr().unwrap())
    };
    let (server, scene) = server_at(&down, |_| {}).await;
    let answer = join_as(&server.buyer(), &scene, "program").await;
    answer.assert_status(201);
    let (_, slow) = Service::start(Mood::Slow(Duration::from_secs(30))).await;
    let short = |config: &mut Config| config.queue.human_check.timeout_ms = 200;
    let (server, scene) = server_at(&slow, short).await;
    let begun = std::time::Instant::now();
    let answer = join_as(&server.buyer(), &scene, "program").await;
    answer.assert_status(201);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_operator_may_rather_refuse_than_let_anybody_in_unchecked() {
    let (service, url) = Service::start(Mood::Text("")).await;
    let refuse = |config: &mut Config| config.queue.human_check.on_outage = OnOutage::Refuse;
    let (server, scene) = server_at(&url, refuse).await;
    for _ in 0..7 {
        let answer = join_as(&server.buyer(), &scene, "person").await;
        answer.assert_problem(503, "human-check-unavailable");
    }
    assert_eq!(service.asked(), 5, "then it is left alone");
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_back_and_never_let_in_for_that() {
    let (service, url) = Service::start(Mood::Slow(Duration::from_millis(1_500))).await;
    let one_at_a_time = |config: &mut Config| {
        config.queue.human_check.concurrency_max = 1;
        config.queue.human_check.timeout_ms = 2_000;
    };
    let (server, scene) = server_at(&url, one_at_a_time).await;
    let open_before = counted(&server, "busy").await;
    let crowd: Vec<Client> = (0..6).map(|_| server.buyer()).collect();
    let answers = join_all(crowd.iter().map(|buyer| join_as(buyer, &scene, "person"))).await;
    assert_eq!(service.asking_max.load(Ordering::SeqCst), 1);
    let busy = answers.iter().filter(|answer| answer.status == 503);
    let busy: Vec<_> = busy.collect();
    for answer in &busy {
        answer.assert_problem(503, "overloaded");
    }
    // Each of those inside was asked about.
    assert_eq!(answers.len() - busy.len(), service.asked());
    assert!(!busy.is_empty());
    assert!(counted(&server, "busy").await >= open_before + busy.len() as u64);
}

#[tokio::test]
async fn the_cheap_proof_is_asked_for_before_the_dear_check() {
    let (service, url) = Service::start(Mood::Well).await;
    let both = |config: &mut Config| {
        config.queue.proof_of_work.enabled = true;
        config.queue.proof_of_work.bits_min = 4;
    };
    let (server, scene) = server_at(&url, both).await;
    let buyer = server.buyer();
    let answer = join_as(&buyer, &scene, "person").await;
    let problem = answer.assert_problem(428, "proof-of-work-required");
    assert_eq!(service.asked(), 0);
    let challenge = problem["proof_of_work"]["challenge"].as_str().unwrap();
    let bits = problem["proof_of_work"]["difficulty"].as_u64().unwrap() as u8;
    let solved = onsale::domain::proof_of_work::solve(challenge, bits, 1 << 20).unwrap();
    let call = || {
        let call = buyer.post(&queue(&scene), &json!({}));
        call.header("proof-of-work", &solved)
    };
    call().problem(428, "human-check-required").await;
    call().header(HUMAN, "person").ok(201).await;
    assert_eq!(service.asked(), 1);
}
