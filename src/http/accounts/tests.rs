//! The promises of accounts, on a store in a temporary file.

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

#[tokio::test]
async fn a_refresh_token_works_once_and_its_second_use_ends_the_session() {
    let f = Fixture::new().await;
    f.ann().await;
    let first = f.sign_in().await;
    let other = f.sign_in().await;
    f.pass(MINUTE).await;
    let second = f.accounts.refresh(&first.refresh_token).await.unwrap();
    assert!(f.accounts.identify(&second.access_token).is_ok());
    let spent = f.accounts.refresh(&first.refresh_token).await;
    assert!(matches!(spent, Err(AccountError::SessionRevoked)));
    // The family is dead: the live token too, and all access tokens.
    assert!(matches!(
        f.accounts.refresh(&second.refresh_token).await,
        Err(AccountError::SessionRevoked)
    ));
    assert_eq!(
        f.accounts.identify(&second.access_token),
        Err(TokenRefusal::Revoked)
    );
    // Other sessions go on.
    assert!(f.accounts.identify(&other.access_token).is_ok());
    assert!(f.accounts.refresh(&other.refresh_token).await.is_ok());
}

#[tokio::test]
async fn of_refreshes_at_once_with_one_token_one_at_most_succeeds() {
    let f = Fixture::new().await;
    f.ann().await;
    let pair = f.sign_in().await;
    let refresh = || f.accounts.refresh(&pair.refresh_token);
    let (a, b, c) = tokio::join!(refresh(), refresh(), refresh());
    assert_eq!([a, b, c].iter().filter(|r| r.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_refresh_token_lives_14_days_from_its_making() {
    let f = Fixture::new().await;
    f.ann().await;
    let pair = f.sign_in().await;
    f.pass(Millis(REFRESH_TTL.0 - MINUTE.0)).await;
    let next = f.accounts.refresh(&pair.refresh_token).await.unwrap();
    f.pass(REFRESH_TTL).await;
    assert!(matches!(
        f.accounts.refresh(&next.refresh_token).await,
        Err(AccountError::SessionRevoked)
    ));
    assert!(matches!(
        f.accounts.refresh("forged").await,
        Err(AccountError::NotARefreshToken)
    ));
}

#[tokio::test]
async fn signing_out_ends_the_session_also_over_a_restart() {
    let f = Fixture::new().await;
    f.ann().await;
    let (gone, kept) = (f.sign_in().await, f.sign_in().await);
    let caller = f.accounts.identify(&gone.access_token).unwrap();
    f.accounts.sign_out(&caller).await.unwrap();
    assert_eq!(
        f.accounts.identify(&gone.access_token),
        Err(TokenRefusal::Revoked)
    );
    let f = f.restarted().await;
    assert_eq!(
        f.accounts.identify(&gone.access_token),
        Err(TokenRefusal::Revoked)
    );
    assert!(matches!(
        f.accounts.refresh(&gone.refresh_token).await,
        Err(AccountError::SessionRevoked)
    ));
    assert!(f.accounts.identify(&kept.access_token).is_ok());
    assert!(f.accounts.refresh(&kept.refresh_token).await.is_ok());
}

#[tokio::test]
async fn a_change_of_roles_ends_sessions_at_once_and_over_a_restart() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let old = f.sign_in().await;
    let minted = f.accounts.mint(ann, Roles::CUSTOMER);
    assert!(f.accounts.identify(&minted).is_ok());
    let staff = Roles::CUSTOMER.with(Role::Staff);
    f.pass(Millis(5)).await;
    f.accounts.set_roles(ann, staff).await.unwrap();
    let new = f.sign_in().await;
    let f = f.restarted().await;
    for token in [&old.access_token, &minted] {
        assert_eq!(f.accounts.identify(token), Err(TokenRefusal::Revoked));
    }
    assert!(matches!(
        f.accounts.refresh(&old.refresh_token).await,
        Err(AccountError::SessionRevoked)
    ));
    assert_eq!(f.accounts.identify(&new.access_token).unwrap().roles, staff);
    // The same roles again change nothing.
    f.accounts.set_roles(ann, staff).await.unwrap();
    assert!(f.accounts.identify(&new.access_token).is_ok());
}

#[tokio::test]
async fn an_erased_person_is_gone_for_good_and_the_email_is_free() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let pair = f.sign_in().await;
    f.accounts.erase(ann).await.unwrap();
    assert_eq!(
        f.accounts.identify(&pair.access_token),
        Err(TokenRefusal::Revoked)
    );
    assert!(matches!(
        f.accounts.sign_in(EMAIL, PASSWORD.into()).await,
        Err(AccountError::BadCredentials)
    ));
    assert!(matches!(
        f.accounts.user(ann).await,
        Err(AccountError::UnknownUser)
    ));
    assert!(matches!(
        f.accounts.restore(ann).await,
        Err(AccountError::UnknownUser)
    ));
    let row = f.store.user(ann).await.unwrap().unwrap();
    assert!(!row.email.contains("ann") && row.name == "deleted" && row.password_hash.is_empty());
    assert_ne!(f.ann().await, ann);
}

#[tokio::test]
async fn a_closed_account_can_be_reopened_unless_its_email_was_taken() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let pair = f.sign_in().await;
    f.accounts.delete(ann).await.unwrap();
    assert_eq!(
        f.accounts.identify(&pair.access_token),
        Err(TokenRefusal::Revoked)
    );
    assert!(matches!(
        f.accounts.refresh(&pair.refresh_token).await,
        Err(AccountError::SessionRevoked)
    ));
    assert!(f.accounts.sign_in(EMAIL, PASSWORD.into()).await.is_err());
    assert!(matches!(
        f.accounts.delete(ann).await,
        Err(AccountError::UnknownUser)
    ));
    f.accounts.restore(ann).await.unwrap();
    assert_eq!(
        f.accounts
            .identify(&f.sign_in().await.access_token)
            .unwrap()
            .user_id,
        ann
    );
    f.accounts.delete(ann).await.unwrap();
    f.ann().await;
    assert!(matches!(
        f.accounts.restore(ann).await,
        Err(AccountError::EmailTaken)
    ));
    let listed = f
        .accounts
        .users(Some("ANN@example.com"), None, 10)
        .await
        .unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|user| user.deleted_at.is_some())
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[tokio::test]
async fn an_admin_is_made_once_and_keeps_the_password_of_an_account() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    assert_eq!(
        f.accounts
            .ensure_admin(EMAIL, "another password")
            .await
            .unwrap(),
        AdminEnsured::Promoted(ann)
    );
    assert_eq!(
        f.accounts.ensure_admin(EMAIL, "x").await.unwrap(),
        AdminEnsured::AlreadyAdmin(ann)
    );
    let roles = f
        .accounts
        .identify(&f.sign_in().await.access_token)
        .unwrap()
        .roles;
    assert_eq!(roles, Roles::CUSTOMER.with(Role::Admin));
    let short = f.accounts.ensure_admin("boss@example.com", "short").await;
    assert!(matches!(short, Err(AccountError::Invalid(_))));
    let made = f
        .accounts
        .ensure_admin("boss@example.com", PASSWORD)
        .await
        .unwrap();
    assert!(matches!(made, AdminEnsured::Created(_)));
    assert!(
        f.accounts
            .sign_in("boss@example.com", PASSWORD.into())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn thousands_of_accounts_are_made_with_one_hash_and_can_sign_in() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let mut people: Vec<_> = (0..5000)
        .map(|n| (format!("load-{n}@example.com"), format!("Load {n}")))
        .collect();
    people.insert(7, (EMAIL.to_owned(), "Somebody else".to_owned()));
    let ids = f
        .accounts
        .create_bulk(&people, PASSWORD, Roles::CUSTOMER)
        .await
        .unwrap();
    assert_eq!((ids.len(), ids[7]), (5001, ann));
    assert_eq!(f.accounts.user(ann).await.unwrap().name, "Ann");
    let pair = f
        .accounts
        .sign_in("load-4999@example.com", PASSWORD.into())
        .await
        .unwrap();
    assert_eq!(
        f.accounts.identify(&pair.access_token).unwrap().user_id,
        ids[5000]
    );
    let page = f.accounts.users(None, None, 3).await.unwrap();
    let next = f.accounts.users(None, Some(page[2].id), 3).await.unwrap();
    assert!(page[2].id < next[0].id);
}

#[tokio::test]
async fn the_sweep_removes_what_no_token_needs_and_nothing_else() {
    let f = Fixture::new().await;
    f.ann().await;
    let (ended, expired) = (f.sign_in().await, f.sign_in().await);
    let caller = f.accounts.identify(&ended.access_token).unwrap();
    let hour = Millis::from_secs(3600);
    f.accounts.sign_out(&caller).await.unwrap();
    assert_eq!(f.accounts.sweep_sessions().await.unwrap(), 0);
    f.pass(hour).await;
    assert_eq!(f.accounts.sweep_sessions().await.unwrap(), 1);
    let live = f.sign_in().await;
    f.pass(Millis(REFRESH_TTL.0 - hour.0)).await;
    assert_eq!(f.accounts.sweep_sessions().await.unwrap(), 0);
    f.pass(Millis(hour.0 - MINUTE.0)).await;
    assert_eq!(f.accounts.sweep_sessions().await.unwrap(), 1);
    assert!(f.accounts.refresh(&live.refresh_token).await.is_ok());
    for pair in [ended, expired] {
        assert!(matches!(
            f.accounts.refresh(&pair.refresh_token).await,
            Err(AccountError::SessionRevoked)
        ));
    }
}

#[tokio::test]
async fn a_user_has_at_most_100_sessions_and_the_oldest_end() {
    use crate::persistence::store::sessions::NewSession;
    let f = Fixture::new().await;
    let user = f.ann().await;
    let first = f.sign_in().await;
    let now = f.clock.now();
    let begin = || {
        let id = crate::domain::ids::SessionId(Uuid::now_v7());
        f.store.begin_session(NewSession {
            id,
            user,
            now,
            expires_at: now.plus(REFRESH_TTL),
        })
    };
    for _ in 0..99 {
        assert!(begin().await.unwrap().unwrap().1.is_empty());
    }
    let newest = f.sign_in().await;
    assert_eq!(
        f.accounts.identify(&first.access_token),
        Err(TokenRefusal::Revoked)
    );
    assert!(f.accounts.identify(&newest.access_token).is_ok());
    assert!(f.accounts.refresh(&newest.refresh_token).await.is_ok());
}

#[tokio::test]
async fn an_export_has_everything_of_the_caller_and_nothing_of_others() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    f.sign_in().await;
    let bob = f
        .accounts
        .create_account("bob@example.com", PASSWORD, "Bob", Roles::CUSTOMER)
        .await
        .unwrap();
    let users = [(ann, "confirmed"), (ann, "aborted"), (bob, "confirmed")];
    f.store
        .sqlite()
        .transaction(move |c| {
            Box::pin(async move {
                for (seq, (user, status)) in (1..).zip(users) {
                    let order = Uuid::now_v7();
                    sqlx::query("INSERT INTO orders VALUES (?1, ?1, ?2, ?1, ?1, 'wallet', ?3, 9, 2, 7, 0, 5, '[[3, 9]]')")
                        .bind(order)
                        .bind(user.0)
                        .bind(status)
                        .execute(&mut *c)
                        .await?;
                    sqlx::query("INSERT INTO ticket VALUES (?1, ?1, 3, ?1, ?2, 'k', 'valid', 6)")
                        .bind(order)
                        .bind(user.0)
                        .execute(&mut *c)
                        .await?;
                    sqlx::query("INSERT INTO transfer VALUES (?, ?, 4, 'house', 'user', 7, 'top_up', ?)")
                        .bind(user.0)
                        .bind(seq)
                        .bind(order)
                        .execute(&mut *c)
                        .await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    let rows = f.accounts.personal_rows(ann).await.unwrap();
    assert_eq!((rows.orders.len(), rows.tickets.len()), (1, 2));
    assert_eq!((rows.wallet_entries.len(), rows.sessions.len()), (2, 1));
    let order = serde_json::to_value(&rows.orders[0]).unwrap();
    assert_eq!(order["amount"], 7);
    assert_eq!(order["created_at"], "1970-01-01T00:00:00.005Z");
    assert_eq!(
        order["seats"],
        serde_json::json!([{"seat_index": 3, "price": 9}])
    );
}

#[tokio::test]
async fn a_renamed_user_keeps_the_session() {
    let f = Fixture::new().await;
    let ann = f.ann().await;
    let pair = f.sign_in().await;
    let renamed = f
        .accounts
        .rename(ann, PersonName::parse(" Anne ").unwrap())
        .await
        .unwrap();
    assert_eq!(renamed.name, "Anne");
    assert!(f.accounts.identify(&pair.access_token).is_ok());
}
