//! The promises of accounts, on a store in a temporary file.

mod people;
mod sessions;

use std::path::Path;

use uuid::Uuid;

use super::fields::PersonName;
use super::*;
use crate::clock::Clock;
use crate::config;
use crate::domain::time::Millis;
use crate::http::tokens::TokenRefusal;
use crate::keys::Keys;
use crate::persistence::Store;

const PASSWORD: &str = "correct horse";
const EMAIL: &str = "ann@example.com";
const REFRESH_TTL: Millis = Millis::from_secs(14 * 86_400);

/// More than a test takes.
const MINUTE: Millis = Millis::from_secs(60);

const OPTIONS: AccountsOptions = AccountsOptions {
    access_ttl: Millis::from_secs(1800),
    refresh_ttl: REFRESH_TTL,
    hashing_threads: 2,
    hashing_line_max: 1024,
};

struct Fixture {
    accounts: Accounts,
    store: Store,
    clock: Clock,
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::over(folder, Clock::system()).await
    }

    async fn over(folder: tempfile::TempDir, clock: Clock) -> Self {
        let url = format!("sqlite://{}", folder.path().join("onsale.db").display());
        let store = Store::open(&config::Store::at(url)).await.unwrap();
        let keys = Keys::open(
            "a secret for tests, long enough",
            &[],
            Path::new("/nonexistent"),
        )
        .unwrap();
        let accounts = Accounts::open(store.clone(), keys, clock.clone(), &OPTIONS)
            .await
            .unwrap();
        Self {
            accounts,
            store,
            clock,
            folder,
        }
    }

    /// The same files and time after a restart of the server.
    async fn restarted(self) -> Self {
        self.store.close().await;
        Self::over(self.folder, self.clock).await
    }

    /// Lets time pass. The clock isn't kept paused, because it would then jump
    /// to the next time-out whenever only SQLite's threads have work to do.
    async fn pass(&self, time: Millis) {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_millis(time.0.unsigned_abs())).await;
        tokio::time::resume();
    }

    async fn ann(&self) -> UserId {
        let ann = self
            .accounts
            .create_account(EMAIL, PASSWORD, "Ann", Roles::CUSTOMER);
        ann.await.unwrap()
    }

    async fn sign_in(&self) -> TokenPair {
        self.accounts.sign_in(EMAIL, PASSWORD.into()).await.unwrap()
    }
}

#[tokio::test]
async fn who_signs_up_can_sign_in_by_the_email_in_any_case() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let pair = f
        .accounts
        .sign_in(" ANN@Example.com ", PASSWORD.into())
        .await
        .unwrap();
    let identity = f.accounts.identify(&pair.access_token).unwrap();
    assert_eq!((identity.user_id, identity.roles), (ann, Roles::CUSTOMER));
    assert_eq!(pair.expires_in, OPTIONS.access_ttl);
    assert_eq!(f.accounts.user(ann).await.unwrap().name, "Ann");
}

#[tokio::test]
async fn an_email_has_one_account_also_when_two_sign_up_at_once() {
    let f = Fixture::new().await;
    let sign_up = || {
        f.accounts
            .create_account(EMAIL, PASSWORD, "Ann", Roles::CUSTOMER)
    };
    let (one, two) = tokio::join!(sign_up(), sign_up());
    let taken = [one, two]
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>();
    assert!(matches!(taken[..], [AccountError::EmailTaken]), "{taken:?}");
    let again = f
        .accounts
        .create_account("ANN@example.com", PASSWORD, "Ann", Roles::CUSTOMER)
        .await;
    assert!(matches!(again, Err(AccountError::EmailTaken)));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_email_are_refused_alike() {
    let f = Fixture::new().await;
    f.ann().await;
    for (email, password) in [
        (EMAIL, "wrong horse"),
        ("bob@example.com", PASSWORD),
        ("no e-mail", ""),
    ] {
        let refused = f.accounts.sign_in(email, password.into()).await;
        assert!(
            matches!(refused, Err(AccountError::BadCredentials)),
            "{email}"
        );
    }
}

#[tokio::test]
async fn after_ten_failures_even_the_right_password_waits() {
    let f = Fixture::new().await;
    f.ann().await;
    for _ in 0..10 {
        assert!(
            f.accounts
                .sign_in(EMAIL, "wrong horse".into())
                .await
                .is_err()
        );
    }
    let refused = f
        .accounts
        .sign_in(EMAIL, PASSWORD.into())
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, AccountError::TooManyFailures(r) if (840..=900).contains(&r.retry_after_seconds))
    );
    let response = Problem::from(refused).render("r");
    assert_eq!(response.status(), 429);
    let seconds = response.headers()["retry-after"].to_str().unwrap();
    assert_eq!(
        response.headers()["ratelimit"],
        format!("\"sign-in\";r=0;t={seconds}")
    );
    f.pass(Millis::from_secs(900)).await;
    assert!(f.accounts.sign_in(EMAIL, PASSWORD.into()).await.is_ok());
}

#[tokio::test]
async fn a_right_guess_among_many_made_at_once_is_not_told() {
    let f = Fixture::new().await;
    f.ann().await;
    let guesses = (0..25).map(|n| match n {
        24 => PASSWORD.to_owned(),
        wrong => format!("guess number {wrong}"),
    });
    let attempts = guesses.map(|guess| f.accounts.sign_in(EMAIL, guess));
    let outcomes = futures_util::future::join_all(attempts).await;
    let told =
        |outcome: &Result<_, AccountError>| matches!(outcome, Err(AccountError::BadCredentials));
    assert_eq!(outcomes.iter().filter(|outcome| told(outcome)).count(), 10);
    assert!(matches!(
        outcomes[24],
        Err(AccountError::TooManyFailures(_))
    ));
}
