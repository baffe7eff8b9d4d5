//! Users and their sessions.

use onsale::domain::ids::{SessionId, UserId};
use onsale::domain::roles::{Role, Roles};
use onsale::domain::time::Timestamp;
use onsale::persistence::StoreError;
use onsale::persistence::constraints::EMAIL_IS_UNIQUE;
use onsale::persistence::store::sessions::{NewSession, Rotation};
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, new_user, user};

const LATER: Timestamp = Timestamp(NOW.0 + 1_000);
const END: Timestamp = Timestamp(NOW.0 + 60_000);

on_every_store!(
    a_user_is_found_by_id_and_by_email,
    an_email_is_of_one_live_user,
    many_users_are_made_at_once,
    users_are_listed_by_id,
    a_change_of_roles_ends_the_sessions,
    a_deleted_user_comes_back_and_an_erased_one_does_not,
    a_refresh_token_is_good_once,
    of_two_uses_of_a_refresh_token_one_is_good,
    a_user_has_a_hundred_sessions,
    old_sessions_are_removed,
    an_export_has_all_of_one_user,
);

async fn ann(f: &Fixture) -> UserId {
    let new = new_user("ann@example.com");
    let id = new.id;
    f.store.insert_user(new).await.unwrap();
    id
}

fn session(user: UserId) -> NewSession {
    NewSession {
        id: SessionId(Uuid::now_v7()),
        user,
        now: NOW,
        expires_at: END,
    }
}

async fn begin(f: &Fixture, user: UserId) -> SessionId {
    let new = session(user);
    let (grant, _) = f.store.begin_session(new).await.unwrap().unwrap();
    assert_eq!((grant.user, grant.roles), (user, Roles::CUSTOMER));
    new.id
}

async fn a_user_is_found_by_id_and_by_email(f: &Fixture) {
    let id = ann(f).await;
    let by_email = f.store.user_by_email("ann@example.com").await.unwrap();
    assert_eq!(by_email.unwrap().id, id);
    assert!(
        f.store
            .user_by_email("bob@example.com")
            .await
            .unwrap()
            .is_none()
    );
    assert!(f.store.user(user()).await.unwrap().is_none());
    let renamed = f.store.rename_user(id, "Anné".to_owned()).await.unwrap();
    assert_eq!(renamed.unwrap().name, "Anné");
    let stored = f.store.user(id).await.unwrap().unwrap();
    assert_eq!(
        (stored.name.as_str(), stored.roles),
        ("Anné", Roles::CUSTOMER)
    );
    assert_eq!((stored.created_at, stored.deleted_at), (NOW, None));
    let nobody = f.store.rename_user(user(), "X".to_owned()).await.unwrap();
    assert!(nobody.is_none());
}

fn is_taken<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Constraint { constraint }) if constraint == EMAIL_IS_UNIQUE)
}

async fn an_email_is_of_one_live_user(f: &Fixture) {
    let first = ann(f).await;
    assert!(is_taken(
        f.store.insert_user(new_user("ann@example.com")).await
    ));
    f.store.delete_user(first, LATER).await.unwrap().unwrap();
    let second = ann(f).await;
    assert!(is_taken(f.store.restore_user(first).await));
    f.store.delete_user(second, LATER).await.unwrap().unwrap();
    let back = f.store.restore_user(first).await.unwrap().unwrap();
    assert_eq!((back.id, back.deleted_at), (first, None));
}

async fn many_users_are_made_at_once(f: &Fixture) {
    ann(f).await;
    let users = (0..2_500).map(|n| new_user(&format!("{n}@example.com")));
    let users: Vec<_> = users.chain([new_user("ann@example.com")]).collect();
    let emails = ["7@example.com".to_owned(), "x@example.com".to_owned()];
    let seventh = users[7].id;
    assert_eq!(f.store.insert_users(users).await.unwrap(), 2_500);
    let found = f.store.user_ids_by_email(&emails).await.unwrap();
    assert_eq!(found, [(emails[0].clone(), seventh)]);
}

async fn users_are_listed_by_id(f: &Fixture) {
    let mut ids = Vec::new();
    for n in 0..5 {
        let new = new_user(&format!("{n}@example.com"));
        ids.push(new.id);
        f.store.insert_user(new).await.unwrap();
    }
    let first: Vec<_> = f.store.users(None, None, 3).await.unwrap();
    assert_eq!(first.iter().map(|u| u.id).collect::<Vec<_>>(), ids[..3]);
    let rest = f.store.users(None, Some(ids[2]), 9).await.unwrap();
    assert_eq!(rest.iter().map(|u| u.id).collect::<Vec<_>>(), ids[3..]);
    let one = f.store.users(Some("4@example.com"), None, 9).await.unwrap();
    assert_eq!(one.iter().map(|u| u.id).collect::<Vec<_>>(), ids[4..]);
}

async fn a_change_of_roles_ends_the_sessions(f: &Fixture) {
    let id = ann(f).await;
    let live = begin(f, id).await;
    let same = f.store.set_roles(id, Roles::CUSTOMER, LATER).await.unwrap();
    assert!(!same.unwrap().changed);
    let staff = Roles::CUSTOMER.with(Role::Staff);
    let set = f.store.set_roles(id, staff, LATER).await.unwrap().unwrap();
    assert!(set.changed && set.user.roles == staff && set.user.sessions_from == LATER);
    let rotation = f.store.rotate_session(live, 1, LATER, END).await.unwrap();
    assert!(matches!(rotation, Rotation::Ended));
    let revoked = f.store.revoked_after(NOW).await.unwrap();
    assert_eq!(revoked.users, [(id, LATER)]);
    assert_eq!(revoked.sessions, [(live, LATER)]);
    let revoked = f.store.revoked_after(LATER).await.unwrap();
    assert!(revoked.users.is_empty() && revoked.sessions.is_empty());
}

async fn a_deleted_user_comes_back_and_an_erased_one_does_not(f: &Fixture) {
    let id = ann(f).await;
    begin(f, id).await;
    let deleted = f.store.delete_user(id, LATER).await.unwrap().unwrap();
    assert_eq!(deleted.deleted_at, Some(LATER));
    assert!(f.store.delete_user(id, LATER).await.unwrap().is_none());
    assert!(f.store.begin_session(session(id)).await.unwrap().is_none());
    f.store.restore_user(id).await.unwrap().unwrap();
    let erased = f.store.erase_user(id, LATER).await.unwrap().unwrap();
    assert_eq!(
        (erased.name.as_str(), erased.password_hash.as_str()),
        ("deleted", "")
    );
    assert_eq!(erased.email, format!("deleted-{}", id.0.simple()));
    assert!(f.store.restore_user(id).await.unwrap().is_none());
    assert!(
        f.store
            .user_by_email("ann@example.com")
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_refresh_token_is_good_once(f: &Fixture) {
    let id = ann(f).await;
    let live = begin(f, id).await;
    let rotate = |generation| f.store.rotate_session(live, generation, NOW, END);
    assert!(matches!(rotate(1).await.unwrap(), Rotation::Rotated(_)));
    assert!(matches!(rotate(2).await.unwrap(), Rotation::Rotated(_)));
    assert!(matches!(rotate(1).await.unwrap(), Rotation::Spent));
    assert!(matches!(rotate(3).await.unwrap(), Rotation::Ended));
    let expiring = begin(f, id).await;
    let late = f.store.rotate_session(expiring, 1, END, END).await.unwrap();
    assert!(matches!(late, Rotation::Ended));
    let ended = begin(f, id).await;
    f.store.end_session(ended, NOW).await.unwrap();
    let late = f.store.rotate_session(ended, 1, NOW, END).await.unwrap();
    assert!(matches!(late, Rotation::Ended));
    let unknown = SessionId(Uuid::now_v7());
    let late = f.store.rotate_session(unknown, 1, NOW, END).await.unwrap();
    assert!(matches!(late, Rotation::Ended));
}

async fn of_two_uses_of_a_refresh_token_one_is_good(f: &Fixture) {
    let id = ann(f).await;
    for _ in 0..10 {
        let live = begin(f, id).await;
        let rotate = || f.store.rotate_session(live, 1, NOW, END);
        let (one, other) = tokio::join!(rotate(), rotate());
        let uses = [one.unwrap(), other.unwrap()];
        let good = uses
            .iter()
            .filter(|use_| matches!(use_, Rotation::Rotated(_)));
        assert_eq!(good.count(), 1);
        let spent = uses.iter().filter(|use_| matches!(use_, Rotation::Spent));
        assert_eq!(spent.count(), 1);
    }
}

async fn a_user_has_a_hundred_sessions(f: &Fixture) {
    let id = ann(f).await;
    let oldest = begin(f, id).await;
    for _ in 1..100 {
        let (_, ended) = f.store.begin_session(session(id)).await.unwrap().unwrap();
        assert!(ended.is_empty());
    }
    let (_, ended) = f.store.begin_session(session(id)).await.unwrap().unwrap();
    assert_eq!(ended, [oldest]);
}

async fn old_sessions_are_removed(f: &Fixture) {
    let id = ann(f).await;
    let (_expiring, ended) = (begin(f, id).await, begin(f, id).await);
    f.store.end_session(ended, NOW).await.unwrap();
    assert_eq!(f.store.remove_old_sessions(NOW, 9).await.unwrap(), 0);
    assert_eq!(f.store.remove_old_sessions(LATER, 9).await.unwrap(), 1);
    let past = Timestamp(END.0 + 1);
    assert_eq!(f.store.remove_old_sessions(past, 9).await.unwrap(), 1);
}

async fn an_export_has_all_of_one_user(f: &Fixture) {
    let id = ann(f).await;
    begin(f, id).await;
    f.write(vec![f.charge(id, 1), f.charge(user(), 1)]).await;
    let rows = f.store.personal_rows(id).await.unwrap();
    assert_eq!((rows.sessions.len(), rows.wallet_entries.len()), (1, 1));
    assert_eq!(rows.wallet_entries[0].amount, 1_000_000);
    assert!(rows.orders.is_empty() && rows.tickets.is_empty());
}
