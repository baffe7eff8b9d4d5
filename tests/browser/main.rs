//! The operators' page in a real browser: what it shows under load is what
//! `/metrics` says; who may see it; on a desk and on a phone; by keyboard; for
//! everybody.
//!
//! Needs Chromium and axe-core: `scripts/browser run cargo test --test browser`.
//! With `ONSALE_SCREENSHOTS=docs/screenshots` its pictures are kept there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; it measures real time"
)]

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod page;

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use common::client::Client;
use common::process::{ADMIN_EMAIL, ADMIN_PASSWORD, ServerProcess, Settings, sign_up};
use common::scene::{Scene, Show};
use common::{eventually, in_seconds};
use driver::{ENTER, ESCAPE, SHOWN_LIMIT, Screen, TAB};
use page::{Page, metric};

const PASSWORD: &str = "correct horse battery staple";

/// So many people buy while the page is looked at, and arrive within so many
/// seconds: for pictures that are kept long enough for the lines to show it.
const BUYERS: (u32, u64) = (400, 12);
const BUYERS_OF_PICTURES: (u32, u64) = (1_200, 100);

/// A server with something on sale, a waiting room before something else, and
/// buyers on their way.
struct World {
    server: ServerProcess,
    admin: Client,
    scene: Scene,
    load: Child,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings::in_folder(folder.path()).env("ONSALE_LOG__FILTER", "warn");
        let server = tokio::task::block_in_place(|| ServerProcess::start(&settings));
        let admin = server.admin().await;
        let scene = Show::grid(50, 80, 50_000).dates(2).open(&admin).await;
        crowd(&server, &admin).await;
        let load = buyers(&server, folder.path(), &scene.timetable);
        Self {
            server,
            admin,
            scene,
            load,
            _folder: folder,
        }
    }

    async fn metrics(&self) -> String {
        self.server.client().root("/metrics").send().await.text()
    }

    /// The buyers are done.
    async fn sold(&mut self) {
        let load = Mutex::new(&mut self.load);
        let status = eventually("the buyers are done", SHOWN_LIMIT * 4, async || {
            load.lock().unwrap().try_wait().unwrap()
        })
        .await;
        // On a machine whose disk stalls some are refused, and it says so: what is
        // shown must agree all the same.
        assert!(matches!(status.code(), Some(0 | 1)), "{status:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.load.kill();
        let _ = self.load.wait();
    }
}

/// A waiting room that lets in few of the people before it.
async fn crowd(server: &ServerProcess, admin: &Client) {
    let policy = json!({ "preset": "active-50", "max_active": 3, "admit": null });
    let show = Show::grid(2, 10, 90_000)
        .with("title", json!("Swan Lake"))
        .with("queue", policy);
    let scene = show.open(admin).await;
    for number in 0..8 {
        let email = format!("waits-{number}@example.com");
        let user = sign_up(&server.client(), &email, PASSWORD).await;
        let path = format!("/performances/{}/queue", scene.performance);
        user.post(&path, &json!({})).ok(201).await;
    }
}

/// A coupon of three, of which `customer` has one.
async fn claimed_coupon(admin: &Client, customer: &Client) -> String {
    let wish = json!({
        "name": "Spring", "discount": { "kind": "percent", "value": 10 }, "stock": 3,
        "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
    });
    let coupon = admin.post("/admin/coupons", &wish).ok(201).await;
    let id = coupon["coupon_id"].as_str().unwrap().to_owned();
    let claims = format!("/coupons/{id}/claims");
    customer.post(&claims, &json!({})).ok(201).await;
    id
}

fn buyers_now() -> (u32, u64) {
    let kept = page::pictures().map(|_| BUYERS_OF_PICTURES);
    kept.unwrap_or(BUYERS)
}

/// Returns once the lines have something to show, where pictures are kept.
async fn some_history(page: &Page) {
    if page::pictures().is_some() {
        let (_, arrive_over) = buyers_now();
        tokio::time::sleep(Duration::from_secs(arrive_over - 30)).await;
        page.samples(1).await;
    }
}

/// People who buy over some seconds, thinking in between.
fn buyers(server: &ServerProcess, folder: &std::path::Path, timetable: &str) -> Child {
    let file = folder.join("buyers.json");
    let (buyers, arrive_over) = buyers_now();
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onsale-load"));
        command
            .current_dir(folder)
            .env("ONSALE_NODE__DATA_DIR", folder)
            .env(
                "ONSALE_STORE__URL",
                format!("sqlite://{}", folder.join("onsale.db").display()),
            )
            .env_remove("ONSALE_REDIS__URL")
            .env_remove("ONSALE_KAFKA__BROKERS")
            .stdout(Stdio::null());
        command
    };
    let prepared = command()
        .args(["prepare", "--buyers", &buyers.to_string(), "--out"])
        .arg(&file)
        .status();
    assert!(prepared.expect("onsale-load runs").success());
    let running = command()
        .args(["run", "--url", server.client().base()])
        .arg("--buyers-file")
        .arg(&file)
        .args(["--timetable", timetable, "--connections", "64"])
        .args([
            "--arrive-over",
            &arrive_over.to_string(),
            "--duration",
            "300",
            "--think-ms",
            "500..2500",
        ])
        .spawn();
    running.expect("onsale-load runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_shows_under_load_is_what_the_metrics_say() {
    let mut world = World::start().await;
    let page = Page::open(world.server.client().base(), Screen::DESKTOP).await;
    page.sign_in().await;
    page.shows("holds are made", "Number(value('holds.ok')) > 0")
        .await;
    page.shows("orders are confirmed", "Number(value('orders.ok')) > 0")
        .await;
    // The date that is sold has most to do, or its buyers' accounts.
    page.shows(
        "the busiest actors",
        "text('panel-busiest-actors').includes('The Nutcracker')",
    )
    .await;

    // While they change, what is shown lies between two looks at the metrics.
    let totals = [
        ("holds.ok_total", "onsale_holds_total{outcome=\"ok\"}"),
        ("orders.ok_total", "onsale_orders_total{outcome=\"ok\"}"),
    ];
    let before = world.metrics().await;
    page.samples(2).await;
    let mut shown = Vec::new();
    for (series, _) in totals {
        shown.push(page.value(series).await);
    }
    let after = world.metrics().await;
    for ((series, name), shown) in totals.into_iter().zip(shown) {
        let (low, high) = (metric(&before, name), metric(&after, name));
        assert!(
            low > 0.0 && low <= shown && shown <= high,
            "{series}: {low} {shown} {high}"
        );
    }
    some_history(&page).await;
    page.picture("ops-desktop", true).await;

    // Once all is quiet they are the same.
    world.sold().await;
    eventually("all is written", SHOWN_LIMIT, async || {
        (metric(&world.metrics().await, "onsale_dirty_bytes") == 0.0).then_some(())
    })
    .await;
    page.samples(3).await;
    let metrics = world.metrics().await;
    for (series, name) in totals.into_iter().chain([
        ("seats.sold", "onsale_seats{status=\"sold\"}"),
        ("seats.held", "onsale_seats{status=\"held\"}"),
        ("seats.available", "onsale_seats{status=\"available\"}"),
        ("seats.blocked", "onsale_seats{status=\"blocked\"}"),
        ("queues.waiting", "onsale_queue_waiting_people"),
        ("queues.active", "onsale_queue_active_people"),
        ("actors.timetable.live", "onsale_actors{kind=\"timetable\"}"),
        ("actors.account.live", "onsale_actors{kind=\"account\"}"),
        (
            "actors.timetable.mailbox",
            "onsale_actor_mailbox_messages{kind=\"timetable\"}",
        ),
        (
            "actors.timetable.restarts_total",
            "onsale_actor_restarts_total{kind=\"timetable\"}",
        ),
        ("outbox.events", "onsale_outbox_events"),
        ("dirty.bytes", "onsale_dirty_bytes"),
    ]) {
        let (shown, said) = (page.value(series).await, metric(&metrics, name));
        assert!(
            (shown - said).abs() < 1e-9,
            "{series}: {shown} on the page, {said} in {name}"
        );
    }
    assert!(page.value("seats.sold").await > 0.0);
    page.assert_loaded_from_here_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_administrators_and_can_be_used_by_keyboard() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path()).env("ONSALE_LOG__FILTER", "warn");
    let server = tokio::task::block_in_place(|| ServerProcess::start(&settings));
    let admin = server.admin().await;
    let scene = Show::small().open(&admin).await;
    let customer = sign_up(&server.client(), "customer@example.com", PASSWORD).await;
    customer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let coupon = claimed_coupon(&admin, &customer).await;

    let page = Page::open(server.client().base(), Screen::DESKTOP).await;
    let browser = &page.browser;
    browser
        .wait(
            "the form has the focus",
            "return document.activeElement.id === 'email'",
        )
        .await;
    assert_eq!(
        browser
            .run("return document.getElementById('dashboard').hidden")
            .await,
        true
    );
    page.assert_accessible("the sign-in").await;
    for (email, password, why) in [
        (ADMIN_EMAIL, "not the password", "e-mail"),
        ("customer@example.com", PASSWORD, "administrator"),
    ] {
        page.is_refused(email, password, why).await;
        assert_eq!(browser.run("return sessionStorage.length").await, 0);
    }
    page.fill_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    browser.press(ENTER).await;
    page.samples(1).await;

    // A reload goes on; a link leads to one date.
    browser
        .go(&format!(
            "{}/ops#timetable/{}",
            server.client().base(),
            scene.timetable
        ))
        .await;
    browser.run("location.reload()").await;
    page.shows("the date", "text('drill').includes('The Nutcracker')")
        .await;
    let held = "[...document.querySelectorAll('#drill .facts div')].some((fact) => fact.innerText === 'Held\\n2')";
    page.shows("what it has in memory", held).await;
    page.assert_accessible("a date").await;
    browser.press(ESCAPE).await;
    browser
        .wait(
            "it is closed",
            "return !document.getElementById('drill').open",
        )
        .await;

    // The panel of coupons leads to one of them.
    let link = format!("button.link[title='{coupon}']");
    let is_listed = format!("document.querySelector(\"{link}\") !== null");
    page.shows("the coupon is listed", &is_listed).await;
    browser.click(&link).await;
    page.shows("the coupon", "text('drill').includes('Spring')")
        .await;
    let left = "[...document.querySelectorAll('#drill .facts div')].some((fact) => fact.innerText === 'Remaining\\n2')";
    page.shows("how many are left", left).await;
    browser.press(ESCAPE).await;
    browser
        .wait(
            "it is closed",
            "return !document.getElementById('drill').open",
        )
        .await;

    // From the first key on, all can be reached; what is open has the focus.
    let mut reached = false;
    for _ in 0..40 {
        browser.press(TAB).await;
        reached = browser
            .run("return document.activeElement.matches('button.link')")
            .await
            == true;
        if reached {
            break;
        }
    }
    assert!(reached, "no actor can be reached by keyboard");
    browser.press(ENTER).await;
    browser
        .wait("it opens", "return document.getElementById('drill').open")
        .await;
    browser.press(ESCAPE).await;
    browser
        .wait(
            "the focus is back",
            "return document.activeElement.matches('button.link')",
        )
        .await;

    // Who is no administrator any more sees nothing more.
    browser.click("#sign-out").await;
    browser
        .wait(
            "the form is back",
            "return !document.getElementById('sign-in').hidden",
        )
        .await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    page.assert_loaded_from_here_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_a_phone_and_a_desk_in_light_and_dark_for_everybody() {
    let world = World::start().await;
    let page = Page::open(world.server.client().base(), Screen::DESKTOP).await;
    page.sign_in().await;
    page.shows(
        "orders are confirmed",
        "Number(value('orders.ok_total')) > 20",
    )
    .await;
    some_history(&page).await;
    for (screen, name) in [(Screen::DESKTOP, "desktop"), (Screen::PHONE, "phone")] {
        page.browser.resize(screen).await;
        for scheme in ["light", "dark"] {
            page.browser.prefer(scheme).await;
            page.samples(2).await;
            let wide = "return document.documentElement.scrollWidth - innerWidth";
            assert_eq!(page.browser.run(wide).await, 0, "{name} is too wide");
            page.assert_accessible(&format!("{name}, {scheme}")).await;
            match (name, scheme) {
                ("desktop", "dark") => page.picture("ops-desktop-dark", true).await,
                ("phone", "light") => page.picture("ops-phone", false).await,
                _ => {}
            }
        }
    }
    page.browser.resize(Screen::DESKTOP).await;
    page.browser.prefer("light").await;
    let date = format!("button.link[title='{}']", world.scene.timetable);
    page.browser.click(&date).await;
    page.shows("the date", "text('drill').includes('Open orders')")
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    page.picture("ops-date", false).await;
    let one = format!("/admin/actors/timetable/{}", world.scene.timetable);
    let seen: Value = world.admin.get(&one).ok(200).await;
    assert!(
        seen["life"]["observed"]["sold"].as_i64() > Some(0),
        "{seen}"
    );
}
