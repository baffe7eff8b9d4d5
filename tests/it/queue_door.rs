//! The door of the waiting room: a proof of work for who joins anew.

use std::time::Duration;

use futures_util::future::join_all;
use onsale::config::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Client, Scene, Show, TestServer, number, text};

const PROOF: &str = "proof-of-work";
const REQUIRED: &str = "proof-of-work-required";
const INVALID: &str = "proof-of-work-invalid";

/// A server that asks for it, of little work.
async fn server_with(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.queue.proof_of_work.enabled = true;
        config.queue.proof_of_work.bits_min = 8;
        config.queue.proof_of_work.bits_max = 14;
        change(config);
    })
    .await
}

async fn scene(server: &TestServer) -> Scene {
    // One inside, so that the others keep their places.
    let policy = json!({ "max_active": 1, "admit": null, "free_admission": 0 });
    server.open(&Show::small().with("queue", policy)).await
}

fn queue(scene: &Scene) -> String {
    format!("/performances/{}/queue", scene.performance)
}

/// The challenge of somebody who has no place.
async fn challenge(buyer: &Client, scene: &Scene) -> Value {
    let call = buyer.post(&queue(scene), &json!({}));
    let problem = call.problem(428, REQUIRED).await;
    problem["proof_of_work"].clone()
}

fn difficulty(challenge: &Value) -> u32 {
    u32::try_from(number(challenge, "difficulty")).unwrap()
}

fn zero_bits(text: &str) -> u32 {
    let hash = Sha256::digest(text.as_bytes());
    let bits: String = hash.iter().map(|byte| format!("{byte:08b}")).collect();
    bits.chars().take_while(|&bit| bit == '0').count() as u32
}

/// As the page of the problem says.
fn solve(challenge: &Value) -> String {
    assert_eq!(challenge["algorithm"], "sha-256", "{challenge}");
    let (signed, bits) = (text(challenge, "challenge"), difficulty(challenge));
    let solutions = (0_u64..).map(|nonce| format!("{signed}.{nonce}"));
    solutions
        .take(1 << 22)
        .find(|text| zero_bits(text) >= bits)
        .expect("a solution")
}

async fn join_with(buyer: &Client, scene: &Scene, proof: &str) -> Value {
    let call = buyer.post(&queue(scene), &json!({}));
    call.header(PROOF, proof).ok(201).await
}

async fn refused(buyer: &Client, scene: &Scene, proof: &str) -> Value {
    let call = buyer.post(&queue(scene), &json!({}));
    let problem = call.header(PROOF, proof).problem(403, INVALID).await;
    // It says how to go on.
    problem["proof_of_work"].clone()
}

#[tokio::test]
async fn who_joins_anew_solves_a_puzzle_and_who_has_a_place_does_not() {
    let server = server_with(|_| {}).await;
    let scene = scene(&server).await;
    let buyer = server.buyer();
    let asked = challenge(&buyer, &scene).await;
    assert_eq!(asked["difficulty"], 8, "{asked}");
    assert!(asked["expires_at"].is_string());
    // To be asked gives no place.
    let nowhere = buyer.get(&queue(&scene)).problem(404, "not-in-queue");
    nowhere.await;
    let solution = solve(&asked);
    let place = join_with(&buyer, &scene, &solution).await;
    assert_eq!(place["number"], 1, "{place}");
    // Again, with it and without: the same place.
    for call in [
        buyer.post(&queue(&scene), &json!({})),
        buyer
            .post(&queue(&scene), &json!({}))
            .header(PROOF, &solution),
    ] {
        assert_eq!(call.ok(200).await["number"], 1);
    }
    // Who has left joins anew.
    buyer.delete(&queue(&scene)).ok(204).await;
    challenge(&buyer, &scene).await;
    let metrics = server.anyone().root("/metrics").send().await.text();
    for outcome in ["required", "solved"] {
        let line = format!("onsale_queue_proofs_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_key_is_free_after_a_challenge_and_keeps_the_answer_after_the_solution() {
    let server = server_with(|_| {}).await;
    let scene = scene(&server).await;
    let buyer = server.buyer();
    let call = || buyer.post(&queue(&scene), &json!({})).key("join-1");
    let problem = call().problem(428, REQUIRED).await;
    let solution = solve(&problem["proof_of_work"]);
    let first = call().header(PROOF, &solution).ok(201).await;
    let again = call().send().await;
    again.assert_status(201);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json()["number"], first["number"]);
}

#[tokio::test]
async fn a_solution_helps_nobody_else_and_nowhere_else() {
    let server = server_with(|_| {}).await;
    let (here, there) = (scene(&server).await, scene(&server).await);
    let (mine, other) = (server.buyer(), server.buyer());
    let solution = solve(&challenge(&mine, &here).await);
    let asked_again = refused(&other, &here, &solution).await;
    refused(&mine, &there, &solution).await;
    // What the refusal carries is good.
    join_with(&other, &here, &solve(&asked_again)).await;
    join_with(&mine, &here, &solution).await;
}

#[tokio::test]
async fn what_was_forged_or_has_too_few_zero_bits_is_refused() {
    let server = server_with(|config| config.queue.proof_of_work.bits_min = 12).await;
    let scene = scene(&server).await;
    let buyer = server.buyer();
    let asked = challenge(&buyer, &scene).await;
    let (signed, solution) = (text(&asked, "challenge"), solve(&asked));
    let almost = (0_u64..)
        .map(|nonce| format!("{signed}.{nonce}"))
        .find(|text| (6..12).contains(&zero_bits(text)))
        .unwrap();
    refused(&buyer, &scene, &almost).await;
    // Each letter is signed, the difficulty among them. Of forged texts only
    // those count that would be solutions.
    let letters: Vec<usize> = (0..signed.len()).step_by(7).collect();
    for at in letters {
        let mut forged = signed.to_owned();
        let letter = if &signed[at..=at] == "A" { "B" } else { "A" };
        forged.replace_range(at..=at, letter);
        let own = json!({ "algorithm": "sha-256", "challenge": forged, "difficulty": 12 });
        refused(&buyer, &scene, &solve(&own)).await;
    }
    let nonce = solution.rsplit_once('.').unwrap().1;
    for forged in ["x", "..", "a.b.c", nonce, signed, &"1".repeat(4_000)] {
        refused(&buyer, &scene, forged).await;
    }
    refused(&buyer, &scene, &format!("{solution}\u{e9}")).await;
    join_with(&buyer, &scene, &solution).await;
}

#[tokio::test]
async fn a_solution_that_comes_too_late_gets_a_new_challenge() {
    let server = server_with(|config| config.queue.proof_of_work.ttl_seconds = 1).await;
    let scene = scene(&server).await;
    let buyer = server.buyer();
    let late = solve(&challenge(&buyer, &scene).await);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let call = buyer.post(&queue(&scene), &json!({})).header(PROOF, &late);
    let problem = call.problem(428, REQUIRED).await;
    let solution = solve(&problem["proof_of_work"]);
    join_with(&buyer, &scene, &solution).await;
    // Who has a place by now is told it, however late.
    let again = buyer.post(&queue(&scene), &json!({})).header(PROOF, &late);
    again.ok(200).await;
}

#[tokio::test]
async fn it_gets_harder_while_many_ask_and_never_beyond_its_bound() {
    let server = server_with(|config| {
        config.queue.proof_of_work.bits_min = 4;
        config.queue.proof_of_work.bits_max = 7;
        config.queue.proof_of_work.joins_per_second = 1;
    })
    .await;
    let scene = scene(&server).await;
    let alone = difficulty(&challenge(&server.buyer(), &scene).await);
    assert_eq!(alone, 4);
    let crowd: Vec<Client> = (0..100).map(|_| server.buyer()).collect();
    let asked = join_all(crowd.iter().map(|buyer| challenge(buyer, &scene))).await;
    let bits: Vec<u32> = asked.iter().map(difficulty).collect();
    assert!(bits.iter().all(|bits| (4..=7).contains(bits)), "{bits:?}");
    assert!(bits.contains(&7), "{bits:?}");
    // The hardest can be solved, too.
    let hardest = bits.iter().position(|bits| *bits == 7).unwrap();
    join_with(&crowd[hardest], &scene, &solve(&asked[hardest])).await;
    // It passes with the rush.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(difficulty(&challenge(&server.buyer(), &scene).await), 4);
}

#[tokio::test]
async fn easy_challenges_that_were_laid_up_are_worth_nothing_in_the_rush() {
    let server = server_with(|config| {
        config.queue.proof_of_work.bits_min = 4;
        config.queue.proof_of_work.bits_max = 12;
        config.queue.proof_of_work.joins_per_second = 1_000_000;
        config.queue.proof_of_work.waiting = 1;
        config.queue.proof_of_work.fresh_seconds = 0;
    })
    .await;
    let scene = scene(&server).await;
    let (early, other) = (server.buyer(), server.buyer());
    let easy = solve(&challenge(&early, &scene).await);
    let also_easy = solve(&challenge(&other, &scene).await);
    let come = async |count: u32, bits: u32| {
        for _ in 0..count {
            let buyer = server.buyer();
            let solution = solve(&challenge(&buyer, &scene).await);
            join_with(&buyer, &scene, &solution).await;
        }
        crate::harness::eventually("a harder puzzle", Duration::from_secs(10), || async {
            let asked = difficulty(&challenge(&server.buyer(), &scene).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
            (asked == bits).then_some(())
        })
        .await;
    };
    // One is inside, three wait. Two bits more: it is still good.
    come(4, 4 + 2).await;
    join_with(&early, &scene, &easy).await;
    // Seven wait.
    come(3, 4 + 3).await;
    let call = other.post(&queue(&scene), &json!({}));
    let problem = call.header(PROOF, &also_easy).problem(428, REQUIRED);
    let asked = problem.await["proof_of_work"].clone();
    assert_eq!(difficulty(&asked), 4 + 3, "{asked}");
    join_with(&other, &scene, &solve(&asked)).await;
    // Who has a place by then keeps it, whatever they show.
    let again = early.post(&queue(&scene), &json!({})).header(PROOF, &easy);
    again.ok(200).await;
}

#[tokio::test]
async fn it_gets_harder_while_many_wait() {
    let server = server_with(|config| {
        config.queue.proof_of_work.bits_min = 4;
        config.queue.proof_of_work.bits_max = 12;
        config.queue.proof_of_work.joins_per_second = 1_000_000;
        config.queue.proof_of_work.waiting = 1;
    })
    .await;
    let scene = scene(&server).await;
    for _ in 0..9 {
        let buyer = server.buyer();
        let solution = solve(&challenge(&buyer, &scene).await);
        join_with(&buyer, &scene, &solution).await;
    }
    // One is inside, eight wait: told within a quarter of a second.
    let asked = crate::harness::eventually("a harder puzzle", Duration::from_secs(10), || async {
        let asked = difficulty(&challenge(&server.buyer(), &scene).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        (asked == 4 + 3).then_some(asked)
    });
    asked.await;
}

#[tokio::test]
async fn where_it_is_off_nobody_looks_at_the_header() {
    let server = TestServer::shared().await;
    let scene = scene(server).await;
    join_with(&server.buyer(), &scene, "whatever").await;
    let plain = server.buyer();
    let place = plain.post(&queue(&scene), &json!({})).ok(201).await;
    assert_eq!(place["number"], 2);
}
