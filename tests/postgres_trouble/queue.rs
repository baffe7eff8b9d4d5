//! The server on Postgres and Redis is killed while it admits people, and Redis
//! loses all that it has.

use crate::room::Room;
use crate::{Place, SECRET};

fn rounds() -> usize {
    std::env::var("ONSALE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

impl Place {
    /// A server on them, and people in its waiting room.
    async fn room(&self) -> Room {
        let (postgres, redis) = (self.services.postgres_url(), self.services.redis_url());
        Room::open(&[
            ("ONSALE_STORE__URL", &postgres),
            ("ONSALE_REDIS__URL", &redis),
            ("ONSALE_AUTH__SECRET", SECRET),
            ("ONSALE_DURABILITY__HOLDS", "checkpoint"),
            ("ONSALE_DURABILITY__JOINS", "checkpoint"),
        ])
        .await
    }

    async fn flush_redis(&self) {
        let client = redis::Client::open(self.services.redis_url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let flush = redis::cmd("FLUSHALL");
        let () = flush.query_async(&mut connection).await.unwrap();
    }
}

/// With either of them, nobody even needs the ticket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_on_postgres_survives_kill_9_in_the_middle_of_admissions() {
    let place = Place::fresh().await;
    let mut room = place.room().await;
    survive(&place, &mut room, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_on_postgres_survives_kill_9_and_the_loss_of_redis() {
    let place = Place::fresh().await;
    let mut room = place.room().await;
    survive(&place, &mut room, true).await;
}

async fn survive(place: &Place, room: &mut Room, lose_redis: bool) {
    for round in 1..=rounds() {
        room.load_and_kill(lose_redis).await;
        if lose_redis {
            place.flush_redis().await;
        }
        room.settings.assert_audit_is_clean();
        room.restart();
        let findings = room.findings().await;
        let (admitted, lost) = room.figures().await;
        eprintln!("round {round}: {admitted} admitted so far, {lost} came back by their tickets");
        assert!(findings.is_empty(), "round {round}: {findings:#?}");
    }
    let findings = room.close().await;
    assert!(findings.is_empty(), "{findings:#?}");
    room.settings.assert_audit_is_clean();
    let (admitted, _) = room.figures().await;
    assert!(admitted > 5 * rounds(), "too little happened: {admitted}");
}
