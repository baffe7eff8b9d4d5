//! A way to the database that a test can cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy before the server at `host` and `port`.
    pub(crate) async fn before(host: String, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = watch::Sender::new(false);
        let cuts = is_cut.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, host.clone(), port, cuts.clone()));
            }
        });
        Self { address, is_cut }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections, and lets no new one through.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets connections through again.
    pub(crate) fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn pass(mut client: TcpStream, host: String, port: u16, mut cuts: watch::Receiver<bool>) {
    if *cuts.borrow_and_update() {
        return;
    }
    let Ok(mut server) = TcpStream::connect((host.as_str(), port)).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = cuts.wait_for(|cut| *cut) => {}
    }
}
