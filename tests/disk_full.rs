//! A disk without room: money waits, holds go on, nothing that was acknowledged
//! is lost, and all is well again when there is room, without a restart.
//!
//! It needs a file system of its own, which it mounts (as root).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use common::client::Client;
use common::process::{ServerProcess, Settings, sign_up};
use common::scene::Show;
use common::{eventually, fresh_key};

/// Small enough to be full at once, big enough for the start.
const DISK_SIZE: &str = "12m";

/// From room on the disk to normal service.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

/// From a full disk to the first refusal: what fits into the file's free pages
/// and the log is still taken.
const REFUSAL_LIMIT: Duration = Duration::from_secs(60);

/// A call that waits for the disk is answered before this.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A small file system that is gone with its value.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let folder = TempDir::new().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_SIZE}"), "tmpfs"])
            .arg(folder.path())
            .status()
            .expect("mount is installed");
        assert!(
            status.success(),
            "mounting a tmpfs isn't permitted; this test needs root"
        );
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for size in [1 << 20, 1 << 16, 1 << 12, 1] {
            let block = vec![0u8; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because the server may still be ending.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A charge that tells what became of it.
async fn try_charge(buyer: &Client, key: &str) -> common::client::Answer {
    buyer
        .post("/wallet/charges", &json!({ "amount": 1 }))
        .key(key)
        .timeout(CALL_TIMEOUT)
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_money_but_not_holds_and_heals_by_itself() {
    let disk = SmallDisk::mount();
    let settings = Settings::in_folder(disk.path());
    let mut server = ServerProcess::start(&settings);
    let admin = server.admin().await;
    let buyer = sign_up(&server.client(), "b@example.com", "a long enough password").await;
    let show = Show::grid(20, 50, 100).limit("max_seats_per_user", 1_000);
    let scene = show.open(&admin).await;
    buyer.charge(100_000).await;
    let kept = buyer
        .hold_seats(&scene.timetable, &["G-A-1", "G-A-2"])
        .await;
    let hold = buyer.hold_seats(&scene.timetable, &["G-A-3"]).await;
    let mut orders = vec![buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await];
    let mut charged = 100_000;

    disk.fill();
    // What is acknowledged on the way counts; then comes the refusal.
    let deadline = Instant::now() + REFUSAL_LIMIT;
    let refused_key = loop {
        let key = fresh_key();
        let answer = try_charge(&buyer, &key).await;
        if answer.status != 201 {
            answer.assert_problem(503, "store-unavailable");
            break key;
        }
        charged += 1;
        assert!(Instant::now() < deadline, "a full disk takes charges");
        disk.fill();
    };

    // Orders wait too; holds, releases and reads go on.
    let answer = buyer
        .order(kept["hold_id"].as_str().unwrap())
        .timeout(CALL_TIMEOUT)
        .send()
        .await;
    answer.assert_problem(503, "store-unavailable");
    for seat in 10..30 {
        let hold = buyer
            .hold(
                &scene.timetable,
                &json!({ "seat_ids": [format!("G-B-{seat}")] }),
            )
            .timeout(CALL_TIMEOUT)
            .ok(201)
            .await;
        if seat % 2 == 0 {
            let path = format!("/holds/{}", hold["hold_id"].as_str().unwrap());
            buyer.delete(&path).ok(204).await;
        }
    }
    let map = buyer.map(&scene.timetable).await;
    assert_eq!(map["sold"], 1);
    buyer.get("/performances").ok(200).await;
    server
        .client()
        .root("/healthz")
        .send()
        .await
        .assert_status(200);

    disk.free();
    eventually("money again", RECOVERY_LIMIT, async || {
        let answer = try_charge(&buyer, &refused_key).await;
        match answer.status {
            201 => Some(()),
            _ => None,
        }
    })
    .await;
    charged += 1;
    // The order that was refused may have been driven to its end meanwhile;
    // either way its hold leads to one order.
    let answer = buyer.order(kept["hold_id"].as_str().unwrap()).send().await;
    match answer.status {
        201 => orders.push(answer.json()),
        _ => {
            let problem = answer.assert_problem(409, "hold-already-ordered");
            let path = format!("/orders/{}", problem["order_id"].as_str().unwrap());
            orders.push(buyer.get(&path).ok(200).await);
        }
    }
    assert_nothing_is_lost(&buyer, &orders, charged).await;
    let map = buyer.map(&scene.timetable).await;
    assert_eq!((&map["sold"], &map["held"]), (&json!(3), &json!(10)));
    settings.assert_audit_is_clean();

    // And it is all on the disk.
    server.kill();
    let token = buyer.token().to_owned();
    let server = ServerProcess::start(&settings);
    let buyer = server.client().with_token(&token);
    assert_nothing_is_lost(&buyer, &orders, charged).await;
    settings.assert_audit_is_clean();
}

async fn assert_nothing_is_lost(buyer: &Client, orders: &[serde_json::Value], charged: i64) {
    let mut spent = 0;
    for order in orders {
        let path = format!("/orders/{}", order["order_id"].as_str().unwrap());
        let read = buyer.get(&path).ok(200).await;
        assert_eq!(read["status"], "confirmed");
        spent += read["amount"].as_i64().unwrap();
    }
    assert_eq!(buyer.balance().await, charged - spent);
}
