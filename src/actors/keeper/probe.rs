//! Notices processes that are gone before their lease is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Life, Shared};
use crate::actors::ownership::Owner;

/// How often other nodes are probed, and how long a probe may take. Two in a
/// row that are refused mean that the process is gone.
const PROBE_EVERY: Duration = Duration::from_millis(300);
const PROBE_MAX: Duration = Duration::from_millis(250);

/// Notices processes that are gone: the kernel of their machine refuses
/// connections to their port. One that is frozen still takes them. All whose
/// lease goes on are probed, whether they own anything or not: one that is gone
/// must not be given anything either.
pub(super) async fn probe(shared: Arc<Shared>) {
    let mut refused: HashSet<Life> = HashSet::new();
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let seen = shared.seen.borrow().clone();
        let members = seen.iter().flat_map(|seen| &seen.view.members);
        let others = members.filter(|m| m.lives() && m.owner.node != shared.me.node);
        let owners: Vec<Owner> = others.map(|member| member.owner.clone()).collect();
        let asked = owners.iter().map(async |owner| {
            let connecting = tokio::net::TcpStream::connect(&*owner.address);
            let connected = tokio::time::timeout(PROBE_MAX, connecting).await;
            matches!(connected, Ok(Err(error)) if is_refusal(&error))
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut gone = HashSet::new();
        let mut refusing = HashSet::new();
        for (owner, is_refused) in owners.into_iter().zip(answers) {
            let life = (owner.node, owner.incarnation);
            if is_refused && refused.contains(&life) {
                gone.insert(life.clone());
            }
            if is_refused {
                refusing.insert(life);
            }
        }
        refused = refusing;
        let is_news = !gone.is_empty() && *shared.gone.lock() != gone;
        *shared.gone.lock() = gone;
        if is_news {
            shared.look.notify_one();
        }
    }
}

fn is_refusal(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::ConnectionReset)
}
