//! Who may write.

use onsale::domain::ids::Epoch;
use onsale::domain::money::Money;
use onsale::domain::time::Timestamp;
use onsale::persistence::store::commit::Verdict;

use crate::fixture::{Fixture, NOW, Place, user};

on_every_store!(
    a_stale_epoch_writes_nothing,
    a_claim_raises_the_epoch_and_tells_of_the_owner_before,
    what_was_written_is_there_for_the_next_process,
    the_first_signing_key_of_a_purpose_stays,
);

async fn a_stale_epoch_writes_nothing(f: &Fixture) {
    let (ann, bob) = (user(), user());
    f.write(vec![f.charge(ann, 1)]).await;
    let late = f.charge(ann, 2);
    let new_in_time = f.charge(bob, 1);
    let epoch = f.claim("second").await;
    assert_eq!(epoch, Epoch(f.epoch.0 + 1));
    let verdicts = f.commit(vec![late, new_in_time]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Fenced, Verdict::Fenced]);
    assert_eq!(f.wallet(ann).await, (Money(1_000_000), 1));
    assert_eq!(f.wallet(bob).await, (Money::ZERO, 0));
    // Whoever owns the shard now goes on from what was written, beside a zombie.
    let mut next = f.charge(ann, 2);
    next.after.epoch = epoch;
    let verdicts = f.commit(vec![f.charge(bob, 1), next]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Fenced, Verdict::Written]);
    assert_eq!(f.wallet(ann).await, (Money(2_000_000), 2));
}

async fn a_claim_raises_the_epoch_and_tells_of_the_owner_before(f: &Fixture) {
    let later = Timestamp(NOW.0 + 5_000);
    f.store.note_alive("first".to_owned(), later).await.unwrap();
    let claim =
        f.store
            .claim_all_shards("first".to_owned(), String::new(), Timestamp(NOW.0 + 9_000));
    let claim = claim.await.unwrap();
    assert_eq!(claim.epoch, Epoch(f.epoch.0 + 1));
    assert_eq!((claim.incarnation, claim.alive_at), (2, Some(later)));
    let epochs = f.store.epochs().await.unwrap();
    assert_eq!(epochs.len(), 1_024);
    assert!(epochs.values().all(|epoch| *epoch == claim.epoch));
}

async fn what_was_written_is_there_for_the_next_process(f: &Fixture) {
    if f.place == Place::Memory {
        // There is no next one: opening it again makes another.
        let other = onsale::persistence::Store::open(&f.settings).await.unwrap();
        assert!(other.epochs().await.unwrap().is_empty());
        return;
    }
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    let next = onsale::persistence::Store::open(&f.settings).await.unwrap();
    let accounts = next.load_accounts(&[ann], NOW).await.unwrap();
    assert_eq!(accounts[&ann].state.balance(), Money(1_000_000));
    next.close().await;
}

async fn the_first_signing_key_of_a_purpose_stays(f: &Fixture) {
    assert_eq!(f.store.signing_key("tickets").await.unwrap(), None);
    for (kid, at) in [("first", 1), ("second", 2)] {
        let private = kid.as_bytes().to_vec();
        let add = f
            .store
            .add_signing_key("tickets", kid.to_owned(), private, Timestamp(at));
        add.await.unwrap();
    }
    let kept = f.store.signing_key("tickets").await.unwrap();
    assert_eq!(kept, Some(("first".to_owned(), b"first".to_vec())));
    assert_eq!(f.store.signing_key("passes").await.unwrap(), None);
}
