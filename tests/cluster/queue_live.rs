//! Live positions on both nodes, over the death of one of them.

use serde_json::{Value, json};

use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::{ServerProcess, sign_up};
use crate::common::scene::Show;
use crate::socket::{Heard, Socket};
use crate::{PASSWORD, PRICE, TAKE_OVER_LIMIT, World};

/// So many queues that each of the two nodes owns some.
const QUEUES: usize = 6;

/// One queue: the sockets of the users 1 and 3 are at node a, that of user 2 is
/// at node b; user 0 is inside.
struct Crowd {
    path: String,
    tickets: Vec<String>,
    first: Socket,
    second: Socket,
    third: Socket,
}

fn at(node: &ServerProcess, token: &str) -> Client {
    node.client().with_token(token)
}

async fn open(client: &Client, path: &str) -> Socket {
    Socket::open(client, &format!("{path}/live")).await.unwrap()
}

impl Crowd {
    async fn gather(world: &World, tokens: &[String]) -> Self {
        let policy = json!({ "max_active": 1, "active_ttl_seconds": 600 });
        let show = Show::grid(2, 10, PRICE).with("queue", policy);
        let scene = show.open(&world.a.admin().await).await;
        let path = format!("/performances/{}/queue", scene.performance);
        let mut tickets = Vec::new();
        for (n, token) in tokens.iter().enumerate() {
            // A node learns of what another one has made a moment later.
            let node = if n % 2 == 0 { &world.a } else { &world.b };
            let state = eventually("the queue is known", TAKE_OVER_LIMIT, || async {
                let join = at(node, token).post(&path, &json!({}));
                let answer = join.send().await;
                (answer.status == 201).then(|| answer.json())
            })
            .await;
            assert_eq!(state["number"], n + 1, "{state}");
            tickets.push(state["ticket"].as_str().unwrap().to_owned());
        }
        Self {
            first: open(&at(&world.a, &tokens[1]), &path).await,
            second: open(&at(&world.b, &tokens[2]), &path).await,
            third: open(&at(&world.a, &tokens[3]), &path).await,
            path,
            tickets,
        }
    }
}

/// Leaves at last: a node that is being taken over may not know the outcome.
async fn leave(client: &Client, path: &str) {
    eventually("left", TAKE_OVER_LIMIT, || async {
        let answer = client.delete(path).send().await;
        (answer.status == 204).then_some(())
    })
    .await;
}

/// Waits for a frame through a take-over, which may take longer than a frame.
async fn until(socket: &mut Socket, what: &str, wanted: impl Fn(&Value) -> bool) {
    let heard = async {
        loop {
            match socket.next_within(TAKE_OVER_LIMIT).await {
                Heard::Frame(frame) if wanted(&frame) => return,
                Heard::Frame(_) => {}
                Heard::Closed(code) => panic!("{what}: the socket was closed: {code}"),
            }
        }
    };
    let limit = tokio::time::timeout(TAKE_OVER_LIMIT, heard).await;
    limit.unwrap_or_else(|_| panic!("{what}: not told"));
}

fn is_at(position: i64) -> impl Fn(&Value) -> bool {
    move |frame| frame["position"] == position
}

fn is_inside(frame: &Value) -> bool {
    frame["state"] == "admitted" && frame["pass"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_on_both_nodes_are_told_and_those_of_the_living_outlive_the_owner() {
    let mut world = World::start().await;
    let mut tokens = Vec::new();
    for n in 0..4 {
        let email = format!("waiter-{n}@example.com");
        let user = sign_up(&world.a.client(), &email, PASSWORD).await;
        tokens.push(user.token().to_owned());
    }
    let mut crowds = Vec::new();
    for _ in 0..QUEUES {
        crowds.push(Crowd::gather(&world, &tokens).await);
    }
    for crowd in &mut crowds {
        leave(&at(&world.a, &tokens[0]), &crowd.path).await;
        until(&mut crowd.first, "the first is inside", is_inside).await;
        until(&mut crowd.second, "the second is next, at b", is_at(1)).await;
        until(&mut crowd.third, "the third moves", is_at(2)).await;
    }
    world.b.kill();
    for crowd in &mut crowds {
        leave(&at(&world.a, &tokens[1]), &crowd.path).await;
        until(&mut crowd.third, "the third is next", is_at(1)).await;
        // Comes back at the node that is left, to the same place.
        let path = format!("{}/live?ticket={}", crowd.path, crowd.tickets[2]);
        let mut second = Socket::open(&at(&world.a, &tokens[2]), &path)
            .await
            .unwrap();
        let inside = |frame: &Value| is_inside(frame) && frame["number"] == 3;
        until(&mut second, "the second is inside", inside).await;
        leave(&at(&world.a, &tokens[2]), &crowd.path).await;
        let inside = |frame: &Value| is_inside(frame) && frame["number"] == 4;
        until(&mut crowd.third, "the third is inside", inside).await;
    }
    world.b = tokio::task::block_in_place(|| ServerProcess::start(&world.b_settings));
    world.balanced().await;
    world.audit();
}
