//! `onsale-load prepare`: accounts, money and tokens for many buyers.
//!
//! Signing up through the server would measure nothing but password hashing
//! (about 24 ms each), so accounts are written in bulk with one shared hash,
//! and tokens are signed with the server's own secret. The money goes through
//! the ledger: real account machines are charged, and their contributions are
//! committed like those of the server, so that the audit stays clean.
//!
//! It works beside a live server, because no actor knows a user who was never
//! seen, and before a server's first start.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use onsale::clock::Clock;
use onsale::config::{self, Config};
use onsale::domain::account::{Account, Command};
use onsale::domain::decision::step;
use onsale::domain::ids::{Activation, EntityId, Epoch, Seq, Stamp, UserId, with_shard};
use onsale::domain::money::Money;
use onsale::domain::roles::Roles;
use onsale::domain::time::{Millis, Timestamp};
use onsale::http::accounts::{Accounts, AccountsOptions};
use onsale::keys::Keys;
use onsale::persistence::Store;
use onsale::persistence::batch::{Contribution, Persisted as _};
use onsale::persistence::lock::{DataLock, LockError};
use onsale::persistence::store::commit::Verdict;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::buyer::Buyer;

/// Accounts that are inserted in one transaction: a server beside must not wait
/// for long.
const ACCOUNTS_PER_INSERT: usize = 5_000;
/// Wallets that are funded in one transaction, about five rows each.
const WALLETS_PER_COMMIT: usize = 500;
/// The most buyers of one call.
const BUYERS_MAX: usize = 1_000_000;
/// How often a batch is repeated when a server starts meanwhile.
const FENCED_TRIES_MAX: u32 = 3;
/// Threads and waiting line for the one hash of each insert.
const HASHING_THREADS: usize = 1;
const HASHING_LINE_MAX: usize = 8;
/// No actor's activation has this number; they count from 1.
const ACTIVATION: Activation = Activation(0);

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// How many accounts.
    #[arg(long)]
    buyers: usize,
    /// What each has to spend, in minor units.
    #[arg(long, default_value_t = 1_000_000)]
    balance: i64,
    /// The settings of the server; ./config.toml if present, else the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where ids and tokens go.
    #[arg(long, value_name = "FILE", default_value = "buyers.json")]
    out: PathBuf,
    /// The password of all accounts.
    #[arg(long, default_value = "load-test-password")]
    password: String,
}

/// What `prepare` writes and `run` reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BuyersFile {
    /// When the tokens end.
    pub(crate) tokens_end_at: Timestamp,
    pub(crate) buyers: Vec<Buyer>,
}

impl BuyersFile {
    /// Reads the file; tokens that have ended are an error.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let line = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = File::open(path)
            .map_err(|error| format!("{} (made by `onsale-load prepare`)", line(&error)))?;
        let read: Self =
            serde_json::from_reader(BufReader::new(file)).map_err(|error| line(&error))?;
        if Clock::system().now() >= read.tokens_end_at {
            return Err(line(&format!(
                "its tokens ended at {}: prepare again",
                read.tokens_end_at
            )));
        }
        Ok(read)
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let line = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut out = BufWriter::new(File::create(path).map_err(|e| line(&e))?);
        serde_json::to_writer(&mut out, self).map_err(|e| line(&e))?;
        out.flush().map_err(|e| line(&e))
    }
}

/// Makes the accounts.
///
/// # Errors
/// A line for a person.
pub(crate) async fn prepare(args: PrepareArgs) -> Result<(), String> {
    if !(1..=BUYERS_MAX).contains(&args.buyers) {
        return Err(format!("--buyers: from 1 to {BUYERS_MAX}"));
    }
    if !(1..=Money::MAX_ENTERED.0).contains(&args.balance) {
        return Err(format!("--balance: from 1 to {}", Money::MAX_ENTERED.0));
    }
    let (config, _) = Config::load(args.config.as_deref()).map_err(text)?;
    let bank = Bank::open(&config).await?;
    let accounts = accounts(&config, &bank).await?;
    let bar = ProgressBar::new(args.buyers as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} buyers")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    let run = Uuid::now_v7().simple();
    let made_at = bank.clock.now();
    let mut buyers = Vec::with_capacity(args.buyers);
    let numbers: Vec<usize> = (0..args.buyers).collect();
    for chunk in numbers.chunks(ACCOUNTS_PER_INSERT) {
        let people: Vec<(String, String)> = chunk
            .iter()
            .map(|n| (format!("load-{run}-{n}@load.invalid"), format!("Buyer {n}")))
            .collect();
        let users = accounts
            .create_bulk(&people, &args.password, Roles::CUSTOMER)
            .await
            .map_err(text)?;
        for users in users.chunks(WALLETS_PER_COMMIT) {
            bank.fund(users, Money(args.balance)).await?;
            buyers.extend(users.iter().map(|user| Buyer {
                user_id: user.to_string(),
                token: accounts.mint(*user, Roles::CUSTOMER),
            }));
            bar.set_position(buyers.len() as u64);
        }
    }
    bar.finish_and_clear();
    bank.store.close().await;
    let file = BuyersFile {
        tokens_end_at: made_at.plus(Millis::from_secs(config.auth.access_ttl_seconds)),
        buyers,
    };
    file.write(&args.out)?;
    println!(
        "{} buyers with {} each are in {}; their tokens are good until {}",
        file.buyers.len(),
        args.balance,
        args.out.display(),
        file.tokens_end_at
    );
    Ok(())
}

async fn accounts(config: &Config, bank: &Bank) -> Result<Accounts, String> {
    let previous: Vec<String> = config
        .auth
        .previous_secrets
        .iter()
        .map(|secret| secret.expose().to_owned())
        .collect();
    let keys = Keys::open(
        config.auth.secret.expose(),
        &previous,
        &config.node.data_dir,
    )
    .map_err(text)?;
    let options = AccountsOptions {
        access_ttl: Millis::from_secs(config.auth.access_ttl_seconds),
        refresh_ttl: Millis::from_secs(config.auth.refresh_ttl_seconds),
        hashing_threads: HASHING_THREADS,
        hashing_line_max: HASHING_LINE_MAX,
    };
    Accounts::open(bank.store.clone(), keys, bank.clock.clone(), &options)
        .await
        .map_err(text)
}

/// Writes wallets as their owner would.
struct Bank {
    store: Store,
    clock: Clock,
    /// Held where no server runs, so that none starts meanwhile.
    _lock: Option<DataLock>,
}

impl Bank {
    async fn open(config: &Config) -> Result<Self, String> {
        let lock = match DataLock::take(&config.node.data_dir) {
            Ok(lock) => Some(lock),
            Err(LockError::Taken(_)) => None,
            Err(error) => return Err(text(error)),
        };
        // A live server has brought the schema up to date.
        let migrate = lock.is_some() && config.store.migrate;
        let store = Store::open(&config::Store {
            migrate,
            ..config.store.clone()
        })
        .await
        .map_err(text)?;
        let bank = Self {
            store,
            clock: Clock::system(),
            _lock: lock,
        };
        if bank.store.epochs().await.map_err(text)?.is_empty() {
            // Before the first start: shards have epochs once somebody has
            // taken them. The server takes them anew.
            let (node, now) = ("onsale-load".to_owned(), bank.clock.now());
            bank.store
                .claim_all_shards(node, String::new(), now)
                .await
                .map_err(text)?;
        }
        Ok(bank)
    }

    /// Charges new wallets; on disk when this returns.
    async fn fund(&self, users: &[UserId], balance: Money) -> Result<(), String> {
        let mut left = users.to_vec();
        for _ in 0..FENCED_TRIES_MAX {
            let epochs = self.store.epochs().await.map_err(text)?;
            let now = self.clock.now();
            let charges: Vec<Contribution> = left
                .iter()
                .map(|user| {
                    let shard = EntityId::from(*user).shard();
                    charge(
                        *user,
                        balance,
                        epochs.get(&shard).copied().unwrap_or_default(),
                        now,
                    )
                })
                .collect();
            let verdicts = self.store.commit(Arc::new(charges)).await.map_err(text)?;
            let fenced = left
                .iter()
                .zip(verdicts)
                .filter(|(_, v)| *v == Verdict::Fenced);
            left = fenced.map(|(user, _)| *user).collect();
            if left.is_empty() {
                return Ok(());
            }
        }
        Err("the server took its shards anew, again and again".to_owned())
    }
}

/// The first change of a new account: its wallet is charged.
fn charge(user: UserId, amount: Money, epoch: Epoch, now: Timestamp) -> Contribution {
    let entity = EntityId::from(user);
    let (mut account, mut seq) = (Account::default(), Seq::default());
    let id = with_shard(Uuid::now_v7(), entity.shard());
    let command = Command::Charge {
        id,
        amount,
        key: None,
    };
    let charged = step(&mut account, &mut seq, now, command);
    let after = Stamp {
        epoch,
        activation: ACTIVATION,
        seq,
    };
    let mut contribution = Contribution::new(entity, Stamp::default(), after, now);
    for (seq, event) in &charged.events {
        contribution.journalise(*seq, now, event);
        account.record(event, &mut contribution);
    }
    contribution
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use onsale::persistence::sqlite::SqliteStore;
    use sqlx::Row as _;

    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = Config::default();
        config.node.data_dir = folder.to_path_buf();
        config.store.url = format!("sqlite://{}/onsale.db", folder.display());
        config
    }

    #[tokio::test]
    async fn wallets_are_funded_through_the_ledger_also_after_a_server_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let bank = Bank::open(&config(folder.path())).await.unwrap();
        let users: Vec<UserId> = (0..3).map(|_| UserId(Uuid::now_v7())).collect();
        bank.fund(&users[..2], Money(500)).await.unwrap();
        let (node, now) = ("server".to_owned(), bank.clock.now());
        bank.store
            .claim_all_shards(node, String::new(), now)
            .await
            .unwrap();
        bank.fund(&users[2..], Money(500)).await.unwrap();
        let loaded = bank.store.load_accounts(&users, now).await.unwrap();
        for user in &users {
            let account = &loaded[user];
            assert_eq!(account.state.spendable(), Money(500));
            assert_eq!(account.stamp.seq, Seq(1));
        }
        let url = config(folder.path()).store.url;
        let mut reader = SqliteStore::open_read_only(&url).await.unwrap();
        for table in ["wallet", "transfer", "journal", "entity"] {
            let sql = match table {
                "wallet" => "SELECT count(*) FROM wallet WHERE balance = 500",
                "transfer" => "SELECT count(*) FROM transfer WHERE amount = 500",
                "journal" => "SELECT count(*) FROM journal WHERE length(events) > 0",
                _ => "SELECT count(*) FROM entity WHERE kind = 'account'",
            };
            let count: i64 = sqlx::query(sql)
                .fetch_one(&mut reader)
                .await
                .unwrap()
                .get(0);
            assert_eq!(count, 3, "{table}");
        }
    }

    #[tokio::test]
    async fn it_works_beside_whoever_holds_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let server = Bank::open(&config).await.unwrap();
        let beside = Bank::open(&config).await.unwrap();
        assert!(server._lock.is_some() && beside._lock.is_none());
        beside
            .fund(&[UserId(Uuid::now_v7())], Money(1))
            .await
            .unwrap();
    }
}
