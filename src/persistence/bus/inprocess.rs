//! The bus in this process: hands events to the consumer and waits for it, so
//! that the outbox is its only queue.

use super::BusError;
use super::notices::QueueNotices;
use super::tickets::TicketIssue;
use crate::persistence::store::outbox::Envelope;

/// The consumers of this process.
#[derive(Debug)]
pub struct InProcess {
    notices: QueueNotices,
    tickets: TicketIssue,
}

impl InProcess {
    pub(super) fn new(notices: QueueNotices, tickets: TicketIssue) -> Self {
        Self { notices, tickets }
    }

    /// Has the consumers act on events, which are published with that: a second
    /// transaction for it would wait for the one writer of an embedded store
    /// again. Tells of each whether they have; one behind a gap of a consumer
    /// waits.
    pub(super) async fn publish(&self, events: Vec<Envelope>) -> Result<Vec<bool>, BusError> {
        // Before they are published: what is told twice does no harm, what is not
        // told would be lost.
        self.notices.take(&events).await?;
        self.tickets.take(events, None).await
    }
}
