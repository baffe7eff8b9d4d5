//! A proxy before Postgres that can lose the answer to a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How a client of the protocol asks for a commit, as a simple query, …
const COMMIT: &[u8] = b"COMMIT\0";

/// … and what comes first where a prepared statement is run that is a transaction
/// of its own, on a connection that the client opened for these, with this among
/// its settings.
const BIND: u8 = b'B';
const FOR_BATCHES: &[u8] = b"plan_cache_mode=";

/// How much is passed on at once, in bytes.
const CHUNK: usize = 16 * 1_024;

/// Passes everything on, but for the answers that it is told to lose. Ends with
/// the runtime of its test.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    orders: Arc<Orders>,
}

#[derive(Default)]
struct Orders {
    /// Of the next commits, the answers to so many are lost.
    to_lose: AtomicUsize,
    lost: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start(postgres_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders = Arc::new(Orders::default());
        let proxy = Self {
            port,
            orders: Arc::clone(&orders),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, postgres_port, Arc::clone(&orders)));
            }
        });
        proxy
    }

    /// Loses the answer to the next commit: it is done, its connection is gone.
    pub(crate) fn lose_next(&self) {
        self.orders.to_lose.store(1, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.orders.lost.load(Ordering::SeqCst)
    }
}

impl Orders {
    fn take(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.to_lose
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }
}

async fn pass(mut client: TcpStream, postgres_port: u16, orders: Arc<Orders>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", postgres_port)).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut up, mut down) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut is_for_batches = false;
    loop {
        tokio::select! {
            asked = client.read(&mut up) => match asked {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    let asked = &up[..n];
                    // Said once, when it begins.
                    is_for_batches |= contains(asked, FOR_BATCHES);
                    let commits = contains(asked, COMMIT) || (is_for_batches && asked[0] == BIND);
                    let loses = commits && orders.take();
                    if server.write_all(&up[..n]).await.is_err() {
                        return;
                    }
                    if loses {
                        return lose(&mut client, &mut server, &orders).await;
                    }
                }
            },
            answered = server.read(&mut down) => match answered {
                Ok(0) | Err(_) => return,
                Ok(n) => if client.write_all(&down[..n]).await.is_err() {
                    return;
                },
            },
        }
    }
}

/// Passes on what is left of the question. Once it is answered, it is committed, and
/// both ends are cut.
async fn lose(client: &mut TcpStream, server: &mut TcpStream, orders: &Orders) {
    let (mut from_client, _) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut first = [0];
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        answered = from_server.read(&mut first) => if matches!(answered, Ok(1..)) {
            orders.lost.fetch_add(1, Ordering::SeqCst);
        },
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
