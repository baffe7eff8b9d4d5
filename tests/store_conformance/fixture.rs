//! A store of its own for each test, and rows to write to it.

use std::sync::Arc;

use onsale::config;
use onsale::domain::ids::{
    Activation, CouponId, EntityId, Epoch, HoldId, OrderId, PaymentId, Seq, Stamp, TimetableId,
    UserId, with_shard,
};
use onsale::domain::money::Money;
use onsale::domain::order::{Method, Order, OrderStatus, PricedSeat, PricedSeats};
use onsale::domain::roles::Roles;
use onsale::domain::seat::SeatIndex;
use onsale::domain::time::Timestamp;
use onsale::domain::timetable::Hold;
use onsale::persistence::batch::{Contribution, OutboxRow, TransferRow};
use onsale::persistence::rows::ORDERS_TOPIC;
use onsale::persistence::store::accounts::NewUser;
use onsale::persistence::store::commit::Verdict;
use onsale::persistence::{Store, StoreError};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// What the name of each database of these tests begins with.
const PREFIX: &str = "onsale_conformance";

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Memory,
    Disk,
    Postgres,
}

pub(crate) struct Fixture {
    pub(crate) store: Store,
    /// How to open the same store again; a store in memory can't be.
    pub(crate) settings: config::Store,
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    database: Option<String>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// An empty store whose shards are all owned.
    pub(crate) async fn new(place: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut database = None;
        let url = match place {
            Place::Memory => "sqlite::memory:".to_owned(),
            Place::Disk => format!("sqlite://{}", folder.path().join("it.db").display()),
            Place::Postgres => {
                let name = format!(
                    "{PREFIX}_{}_{}",
                    std::process::id(),
                    Uuid::new_v4().simple()
                );
                let template = template().await;
                let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
                administer(create).await;
                database = Some(name.clone());
                in_database(&name)
            }
        };
        let settings = config::Store {
            // Not for each of many tests at a time more than it needs.
            readers: 2,
            ..config::Store::at(url)
        };
        let store = Store::open(&settings).await.unwrap();
        let mut fixture = Self {
            store,
            settings,
            place,
            epoch: Epoch(0),
            database,
            _folder: folder,
        };
        fixture.epoch = fixture.claim("first").await;
        fixture
    }

    /// Takes all shards.
    pub(crate) async fn claim(&self, node: &str) -> Epoch {
        let claim = self
            .store
            .claim_all_shards(node.to_owned(), "127.0.0.1:1".to_owned(), NOW);
        claim.await.unwrap().epoch
    }

    pub(crate) async fn commit(
        &self,
        contributions: Vec<Contribution>,
    ) -> Result<Vec<Verdict>, StoreError> {
        self.store.commit(Arc::new(contributions)).await
    }

    /// Commits what can't be refused.
    pub(crate) async fn write(&self, contributions: Vec<Contribution>) {
        let count = contributions.len();
        let verdicts = self.commit(contributions).await.unwrap();
        assert_eq!(verdicts, vec![Verdict::Written; count]);
    }

    /// A contribution from `seq` decisions on, of one decision.
    pub(crate) fn contribution(&self, entity: EntityId, seq: u64) -> Contribution {
        let stamp = |seq| Stamp {
            epoch: self.epoch,
            activation: Activation(1),
            seq: Seq(seq),
        };
        let expected = if seq == 0 {
            Stamp::default()
        } else {
            stamp(seq)
        };
        let mut contribution = Contribution::new(entity, expected, stamp(seq + 1), NOW);
        contribution.journalise(Seq(seq + 1), NOW, &"something");
        contribution
    }

    /// A wallet that gets its `nth` million.
    pub(crate) fn charge(&self, user: UserId, nth: u64) -> Contribution {
        let mut contribution = self.contribution(user.into(), nth - 1);
        let rows = contribution.account().unwrap();
        rows.balance = Some(Money(1_000_000 * nth.cast_signed()));
        rows.transfers.push(TransferRow {
            seq: Seq(nth),
            at: NOW,
            debit: "top-up:free".to_owned(),
            credit: format!("wallet:{user}"),
            amount: Money(1_000_000),
            cause: "charge",
            cause_id: Uuid::now_v7(),
        });
        contribution
    }

    /// How much is in the wallet, in how many transfers.
    pub(crate) async fn wallet(&self, user: UserId) -> (Money, usize) {
        let accounts = self.store.load_accounts(&[user], NOW).await.unwrap();
        let entries = self.store.entries_of(user, None, 100).await.unwrap();
        (accounts[&user].state.balance(), entries.len())
    }

    /// The wallet's transfers, from a store that may not answer.
    pub(crate) async fn wallet_or_error(&self, user: UserId) -> Result<usize, StoreError> {
        let entries = self.store.entries_of(user, None, 100).await?;
        Ok(entries.len())
    }

    /// Closes the store, and removes its database.
    pub(crate) async fn end(self) {
        self.store.close().await;
        if let Some(name) = self.database {
            administer(format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

pub(crate) fn user() -> UserId {
    UserId(Uuid::now_v7())
}

pub(crate) fn timetable() -> TimetableId {
    TimetableId(Uuid::now_v7())
}

pub(crate) fn seats(indexes: &[u32]) -> PricedSeats {
    let priced = |seat: &u32| PricedSeat {
        seat: SeatIndex(*seat),
        price: Money(70_000),
    };
    indexes.iter().map(priced).collect()
}

fn id_of(timetable: TimetableId) -> Uuid {
    with_shard(Uuid::now_v7(), EntityId::from(timetable).shard())
}

pub(crate) fn hold(timetable: TimetableId, user: UserId, indexes: &[u32]) -> Hold {
    Hold {
        id: HoldId(id_of(timetable)),
        user,
        seats: seats(indexes),
        created_at: NOW,
        expires_at: Timestamp(NOW.0 + 305_000),
        deadline: Timestamp(NOW.0 + 300_000),
        under_pass: true,
        order: None,
        grace_used: false,
    }
}

pub(crate) fn order(timetable: TimetableId, user: UserId, indexes: &[u32]) -> Order {
    Order {
        id: OrderId(id_of(timetable)),
        user,
        hold: HoldId(id_of(timetable)),
        payment: PaymentId(id_of(timetable)),
        method: Method::Wallet,
        status: OrderStatus::Confirmed,
        seats: seats(indexes),
        discount: Money(1_000),
        coupon: Some(CouponId(Uuid::now_v7())),
        created_at: NOW,
        cancels: vec![],
    }
}

pub(crate) fn event(number: u64) -> OutboxRow {
    OutboxRow {
        topic: ORDERS_TOPIC,
        event_seq: number,
        event_id: Uuid::now_v7(),
        kind: "order.confirmed",
        version: 1,
        at: NOW,
        trace: None,
        payload: "{\"order\": \"ü\"}".to_owned(),
    }
}

pub(crate) fn new_user(email: &str) -> NewUser {
    NewUser {
        id: user(),
        email: email.to_owned(),
        name: "Ann".to_owned(),
        password_hash: "$argon2id$".to_owned(),
        roles: Roles::CUSTOMER,
        created_at: NOW,
    }
}

/// The server to test on; none is a failure, never a reason to skip.
pub(crate) fn server() -> String {
    let url = std::env::var("ONSALE_STORE__URL").unwrap_or_default();
    assert!(
        url.starts_with("postgres"),
        "there is no Postgres to test on: ONSALE_STORE__URL = {url:?}. Run `scripts/services \
         start postgres`, then `set -a; eval \"$(scripts/services env)\"; set +a`"
    );
    url
}

/// The url of another database of that server.
pub(crate) fn in_database(name: &str) -> String {
    let url = server();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Runs a statement that is about databases.
async fn administer(sql: String) {
    let mut connection = connect(&server()).await;
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
        .execute(&mut connection)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| {
        panic!("Postgres does not answer at {url}: {error}. Run `scripts/services start postgres`")
    })
}

/// A database with the schema, made once a process.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            remove_leftovers().await;
            let name = format!("{PREFIX}_{}_template", std::process::id());
            administer(format!("CREATE DATABASE {name}")).await;
            let settings = config::Store::at(in_database(&name));
            Store::open(&settings).await.unwrap().close().await;
            name
        })
        .await
}

/// Removes what processes left that are gone: tests that failed, templates.
async fn remove_leftovers() {
    let mut connection = connect(&server()).await;
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE $1 || '%'")
            .bind(format!("{PREFIX}_"))
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for name in names {
        let of = name[PREFIX.len() + 1..]
            .split('_')
            .next()
            .unwrap_or_default();
        let lives = std::path::Path::new("/proc").join(of).exists();
        if !lives {
            // Another process may have been faster.
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut connection)
                .await;
        }
    }
}
