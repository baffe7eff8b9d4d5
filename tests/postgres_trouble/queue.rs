//! The server on Postgres and Redis is killed while it admits people, and Redis
//! loses all that it has.

use crate::room::Room;
use crate::rounds::rounds;
use crate::{Place, SECRET};

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

    pub(crate) async fn flush_redis(&self) {
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
    room.survive(rounds(), false, async || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_room_on_postgres_survives_kill_9_and_the_loss_of_redis() {
    let place = Place::fresh().await;
    let mut room = place.room().await;
    room.survive(rounds(), true, async || place.flush_redis().await)
        .await;
}
