//! The listener that operations have of their own where `ops.listen` is set.

use crate::common::client::Client;
use crate::common::process::{ADMIN_EMAIL, ADMIN_PASSWORD, ServerProcess, Settings, sign_in};

/// Where the operations are, as the start says.
fn operations_of(server: &ServerProcess) -> Client {
    let log = server.log();
    let said = log
        .iter()
        .find_map(|line| line.split_once("operations on "));
    let (_, base) = said.unwrap_or_else(|| panic!("it doesn't say where:\n{}", log.join("\n")));
    Client::new(base)
}

async fn status(client: &Client, path: &str) -> u16 {
    client.root(path).send().await.status
}

#[tokio::test]
async fn embedded_operations_are_served_at_their_own_listener_and_nowhere_else() {
    let folder = tempfile::TempDir::new().unwrap();
    let settings = Settings::in_folder(folder.path()).env("ONSALE_OPS__LISTEN", "127.0.0.1:0");
    let mut server = ServerProcess::start(&settings);
    let (everybody, operators) = (server.client(), operations_of(&server));
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs/",
        "/ops",
    ] {
        assert_eq!(status(&operators, path).await, 200, "{path}");
        let hidden = everybody.root(path).send().await;
        hidden.assert_problem(404, "not-found");
    }
    // What the operators' page needs, and what buyers do.
    for client in [&operators, &everybody] {
        assert_eq!(status(client, "/api/v1/performances").await, 200);
        assert_eq!(status(client, "/").await, 200);
    }
    let admin = sign_in(&operators, ADMIN_EMAIL, ADMIN_PASSWORD).await;
    admin.get("/admin/ops").ok(200).await;
    assert!(server.terminate().success());
}
