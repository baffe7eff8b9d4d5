//! People: roles, erasure, export, in bulk.

use super::*;

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
                    sqlx::query("INSERT INTO orders VALUES (?1, ?1, ?2, ?1, ?1, 'wallet', ?3, 9, 2, 7, 0, 5, '[[3, 9]]', '[]', NULL)")
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
