//! A server in this process, on a port of its own, with a folder of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onsale::app::App;
use onsale::config::Config;
use onsale::domain::ids::UserId;
use onsale::domain::roles::Role;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) use crate::common::client::{Answer, Client};
pub(crate) use crate::common::scene::{Scene, Show};
pub(crate) use crate::common::{DAY, eventually, fresh_key, in_millis, in_seconds};

/// What an ordinary buyer of these tests can spend.
pub(crate) const PLENTY: i64 = 10_000_000;

/// Time limits of the contract hold on a quiet machine; a test asserts so many
/// times them.
pub(crate) const SLACK_FACTOR: u32 = 10;

/// A hold ends so long after its deadline at most, by the contract.
pub(crate) const EXPIRY_LIMIT: Duration = Duration::from_millis(100);

/// A ticket is issued so long after its order at most, by the contract.
pub(crate) const TICKET_LIMIT: Duration = Duration::from_secs(2);

/// So many holds a second are no limit for a test.
const RATE_NOBODY_REACHES: u32 = 100_000;

/// A server in this process.
pub(crate) struct TestServer {
    app: Arc<App>,
    base: String,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    folder: Arc<TempDir>,
}

impl TestServer {
    /// A fresh one.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A fresh one with other settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), change).await
    }

    /// A fresh one that lets one customer act as fast as a test does.
    pub(crate) async fn start_without_rates() -> Self {
        Self::start_with(|config| {
            config.rates.holds_per_second = RATE_NOBODY_REACHES;
            config.rates.holds_burst = RATE_NOBODY_REACHES;
        })
        .await
    }

    async fn start_in(folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Self {
        show_logs_if_wanted();
        let mut config = config_in(folder.path());
        change(&mut config);
        let app = App::open(config).await.expect("the server opens");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(onsale::http::serve(listener, Arc::clone(&app), async {
            let _ = stopped.await;
        }));
        Self {
            app,
            base,
            stop: Some(stop),
            serving: Some(serving),
            folder,
        }
    }

    /// The one that most tests share: they don't meet, because each makes its
    /// own users and performances.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceLock<TestServer> = OnceLock::new();
        tokio::task::spawn_blocking(|| SHARED.get_or_init(start_on_own_runtime))
            .await
            .unwrap()
    }

    /// Stops in an orderly way.
    pub(crate) async fn stop(mut self) -> Arc<TempDir> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap().unwrap();
        }
        self.app.shutdown().await;
        Arc::clone(&self.folder)
    }

    /// Stops and starts again on the same data.
    pub(crate) async fn restart(self) -> Self {
        let folder = self.stop().await;
        Self::start_again(folder).await
    }

    /// Starts on the data that a server has left.
    pub(crate) async fn start_again(folder: Arc<TempDir>) -> Self {
        Self::start_in(folder, |_| {}).await
    }

    /// What runs behind the HTTP server.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Nobody in particular.
    ///
    /// A connection lives on the runtime of the test that opened it, so each
    /// test, being a thread, has its own.
    pub(crate) fn anyone(&self) -> Client {
        thread_local! {
            static ANYONE: RefCell<HashMap<String, Client>> = RefCell::default();
        }
        ANYONE.with_borrow_mut(|known| {
            known
                .entry(self.base.clone())
                .or_insert_with(|| Client::new(&self.base))
                .clone()
        })
    }

    /// A token of a user with this id; nothing else is known of that user.
    pub(crate) fn mint(&self, user: Uuid, roles: &[Role]) -> String {
        self.app
            .mint_access_token(UserId(user), roles.iter().copied().collect())
    }

    fn somebody(&self, roles: &[Role]) -> Client {
        self.anyone().with_token(&self.mint(Uuid::now_v7(), roles))
    }

    /// An administrator.
    pub(crate) fn admin(&self) -> Client {
        self.somebody(&[Role::Admin])
    }

    /// An organizer, another one each time.
    pub(crate) fn organizer(&self) -> Client {
        self.somebody(&[Role::Organizer])
    }

    /// A customer without money, another one each time.
    pub(crate) fn buyer(&self) -> Client {
        self.somebody(&[Role::Customer])
    }

    /// A customer with so much to spend.
    pub(crate) async fn buyer_with_money(&self, amount: i64) -> Client {
        let buyer = self.buyer();
        buyer.charge(amount).await;
        buyer
    }

    /// The small theatre, on sale.
    pub(crate) async fn small(&self) -> Scene {
        self.open(&Show::small()).await
    }

    /// Makes a performance.
    pub(crate) async fn open(&self, show: &Show) -> Scene {
        show.open(&self.admin()).await
    }
}

fn config_in(folder: &Path) -> Config {
    let mut config = Config::default();
    config.http.listen = "127.0.0.1:0".to_owned();
    config.node.data_dir = folder.into();
    config.store.url = format!("sqlite://{}", folder.join("onsale.db").display());
    config
}

/// `ONSALE_TEST_LOG=info` shows what the servers say.
fn show_logs_if_wanted() {
    if let Ok(filter) = std::env::var("ONSALE_TEST_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
    }
}

/// The shared server outlives each test's runtime, so it has one of its own.
fn start_on_own_runtime() -> TestServer {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            send.send(TestServer::start().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receive.recv().expect("the shared server starts")
}

/// A member that is a text.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no text {member:?} in {value}"))
}

/// A member that is a whole number.
pub(crate) fn number(value: &Value, member: &str) -> i64 {
    value[member]
        .as_i64()
        .unwrap_or_else(|| panic!("no number {member:?} in {value}"))
}

/// A member that is a list.
pub(crate) fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member]
        .as_array()
        .unwrap_or_else(|| panic!("no list {member:?} in {value}"))
}

/// The ids of the seats of a hold or an order, sorted.
pub(crate) fn seat_ids(of: &Value) -> Vec<String> {
    let mut ids: Vec<String> = list(of, "seats")
        .iter()
        .map(|seat| text(seat, "seat_id").to_owned())
        .collect();
    ids.sort();
    ids
}

/// Checks I2 on a status map and that its counters are those of its characters.
pub(crate) fn assert_map_adds_up(map: &Value) {
    let statuses = text(map, "statuses");
    for (member, status) in [
        ("available", 'A'),
        ("held", 'H'),
        ("sold", 'S'),
        ("blocked", 'X'),
    ] {
        let counted = statuses.chars().filter(|&c| c == status).count();
        assert_eq!(number(map, member), counted as i64, "{member} of {map}");
    }
    assert_eq!(number(map, "capacity"), statuses.len() as i64, "{map}");
}
