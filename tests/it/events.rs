//! What is published, below the API.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::harness::{TestServer, text};

#[tokio::test]
async fn an_event_belongs_to_the_trace_of_the_request_that_it_came_of() {
    let server = TestServer::start().await;
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (seat, header) in [("F1-A-1", trace), ("F1-A-2", "nonsense")] {
        let hold = buyer.hold_seats(&scene.timetable, &[seat]).await;
        buyer
            .order(text(&hold, "hold_id"))
            .header("traceparent", header)
            .ok(201)
            .await;
    }
    let file = server.folder().join("onsale.db");
    let rows = SqlitePool::connect_with(SqliteConnectOptions::new().filename(file))
        .await
        .unwrap();
    let traces: Vec<Option<String>> =
        sqlx::query_scalar("SELECT trace FROM outbox ORDER BY event_seq")
            .fetch_all(&rows)
            .await
            .unwrap();
    assert_eq!(traces, [Some(trace.to_owned()), None]);
}
