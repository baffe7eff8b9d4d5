//! Sessions and their refresh tokens.

use super::*;

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
