//! The idempotency key of a request that costs money: who has it, and what its
//! answer is.

use super::{Ended, resolve, void};
use crate::actors::AskError;
use crate::actors::node::Node;
use crate::domain::account::{self, KeyClaim};
use crate::domain::ids::{OrderId, UserId};
use crate::domain::timetable::Resolution;

/// Reserves a request's key. `Some` if the answer is known without doing
/// anything.
///
/// # Errors
/// [`AskError`]
pub async fn reserve_key(
    node: &Node,
    user: UserId,
    key: &KeyClaim,
) -> Result<Option<Ended>, AskError> {
    use account::Reply;
    loop {
        match ask_for_key(node, user, key).await? {
            Ok(Reply::KeyIsRunning(Some((order, timetable)))) => {
                match resolve(node, order, timetable).await? {
                    Resolution::Confirmed(order) => {
                        return Ok(Some(Ended::Confirmed {
                            order,
                            replayed: true,
                        }));
                    }
                    Resolution::Undecided => return Ok(Some(Ended::KeyInUse)),
                    // The request came to nothing without an answer: this one
                    // takes its place, once the money is free again.
                    Resolution::Aborted => {
                        void(node, user, order, timetable).await;
                        free_key(node, user, key, Some(order)).await;
                    }
                }
            }
            Ok(Reply::KeyIsRunning(None)) => return Ok(Some(Ended::KeyInUse)),
            Ok(Reply::KeyIsAnswered) => return Ok(Some(Ended::Answered)),
            Ok(_) => return Ok(None),
            Err(refusal) => return Ok(Some(Ended::Account(refusal))),
        }
    }
}

/// Asks the account for the key of a request. Where that is not answered, the
/// request ends here and may have the key all the same (so after an outage of the
/// database, before the lease is renewed): it is freed, or the key would be in
/// use for as long as the account is.
///
/// # Errors
/// [`AskError`]
pub async fn ask_for_key(
    node: &Node,
    user: UserId,
    key: &KeyClaim,
) -> Result<Result<account::Reply, account::Refusal>, AskError> {
    let reserve = account::Command::Reserve(key.clone());
    let asked = node.accounts.ask(user.0, reserve).await;
    if matches!(asked, Err(AskError::Unknown)) {
        free_key(node, user, key, None).await;
    }
    asked
}

/// Frees the key of a request that came to nothing: its own reservation, or the
/// claim of its order.
pub async fn free_key(node: &Node, user: UserId, key: &KeyClaim, order: Option<OrderId>) {
    let key = key.clone();
    let free = account::Command::FreeKey { key, order };
    // If it is not there to hear it, it has forgotten the key already.
    let _ = node.accounts.resume(user.0, free).await;
}
