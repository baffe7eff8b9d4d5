//! What whole tables must satisfy together, in one statement each.

use futures_util::TryStreamExt as _;

use super::report::{Book, Rule};
use super::snapshot::Snapshot;
use crate::persistence::StoreError;
use crate::persistence::stored::reader::Reader as _;

/// A condition, as two statements.
struct TableCheck {
    rule: Rule,
    /// How many rows are held against it.
    checked: &'static str,
    /// One line for each row that breaks it.
    findings: &'static str,
}

/// An id as text, in hexadecimal.
macro_rules! sqlite_hex {
    ($id:literal) => {
        concat!("hex(", $id, ")")
    };
}
macro_rules! postgres_hex {
    ($id:literal) => {
        concat!("upper(replace(CAST(", $id, " AS text), '-', ''))")
    };
}

/// An id as text, as it is in the names of ledger accounts.
macro_rules! sqlite_uuid {
    ($id:literal) => {
        concat!(
            "lower(substr(hex(",
            $id,
            "), 1, 8) || '-' || substr(hex(",
            $id,
            "), 9, 4) || '-' || ",
            "substr(hex(",
            $id,
            "), 13, 4) || '-' || substr(hex(",
            $id,
            "), 17, 4) || '-' || ",
            "substr(hex(",
            $id,
            "), 21))"
        )
    };
}
macro_rules! postgres_uuid {
    ($id:literal) => {
        concat!("CAST(", $id, " AS text)")
    };
}

/// The conditions, in the words of one of the stores.
macro_rules! checks {
    ($hex:ident, $uuid:ident) => {
        &[
    TableCheck {
        rule: Rule::TicketHasSeat,
        checked: "SELECT count(*) FROM ticket",
        findings: concat!("SELECT 'ticket ' || ", $hex!("ticket.id"), " || ' of order ' || ", $hex!("ticket.order_id"), " \
                || ' is for seat ' || ticket.seat || ' and ' || ticket.status || ', the seat is ' \
                || CASE WHEN sold_seat.order_id = ticket.order_id THEN 'sold' ELSE 'not sold' END \
                || ' to that order' \
             FROM ticket LEFT JOIN sold_seat ON sold_seat.timetable_id = ticket.timetable_id \
               AND sold_seat.seat = ticket.seat \
             LEFT JOIN orders AS o ON o.id = ticket.order_id \
             WHERE o.user_id IS DISTINCT FROM ticket.user_id OR NOT coalesce(CASE ticket.status \
                 WHEN 'valid' THEN sold_seat.order_id = ticket.order_id \
                   AND sold_seat.user_id = ticket.user_id \
                 WHEN 'void' THEN sold_seat.order_id IS DISTINCT FROM ticket.order_id \
                 ELSE false END, false)"),
    },
    // By one pass over the transfers, sorted, and not by looking up each order's:
    // they have no index by cause.
    TableCheck {
        rule: Rule::OrderIsPaid,
        checked: "SELECT count(*) FROM orders \
            WHERE method = 'wallet' AND status IN ('confirmed', 'cancelled')",
        findings: concat!("WITH paid AS MATERIALIZED ( \
                 SELECT cause_id, count(*) AS times, max(amount) AS amount, \
                        max(", $hex!("user_id"), ") AS user_id \
                 FROM transfer WHERE cause = 'order' GROUP BY cause_id) \
             SELECT 'order ' || ", $hex!("o.id"), " || ' of amount ' || o.amount || ' is paid ' \
                || coalesce(paid.times, 0) || ' times, its money is ' \
                || coalesce(p.state || ' ' || p.amount, 'not there') \
             FROM orders AS o LEFT JOIN paid ON paid.cause_id = o.id \
             LEFT JOIN prepare AS p ON p.order_id = o.id \
             WHERE o.method = 'wallet' AND o.status IN ('confirmed', 'cancelled') AND NOT coalesce(CASE \
                 WHEN p.order_id IS NULL THEN o.amount = 0 AND paid.times IS NULL \
                 WHEN p.user_id <> o.user_id OR p.timetable_id <> o.timetable_id \
                   OR p.amount <> o.amount THEN false \
                 WHEN p.state = 'prepared' OR o.amount = 0 \
                   THEN p.state <> 'void' AND paid.times IS NULL \
                 WHEN p.state = 'posted' THEN paid.times = 1 AND paid.amount = o.amount \
                   AND paid.user_id = ", $hex!("o.user_id"), " \
                 ELSE false END, false)"),
    },
    TableCheck {
        rule: Rule::TransferHasOrder,
        checked: "SELECT count(*) FROM transfer WHERE cause = 'order'",
        findings: concat!(
            "SELECT 'transfer ' || t.seq || ' of user ' || ", $hex!("t.user_id"), " || ' over ' || t.amount \
                || ' is for order ' || ", $hex!("t.cause_id"), " \
                || coalesce(' of amount ' || o.amount, ', which is not there') \
             FROM transfer AS t LEFT JOIN orders AS o ON o.id = t.cause_id \
             LEFT JOIN prepare AS p ON p.order_id = t.cause_id \
             WHERE t.cause = 'order' AND NOT coalesce(o.status IN ('confirmed', 'cancelled') \
                 AND o.user_id = t.user_id AND o.amount = t.amount AND p.state = 'posted' \
                 AND t.credit = 'sales:' || ",
            $uuid!("o.timetable_id"),
            ", false)"
        ),
    },
    TableCheck {
        rule: Rule::PrepareHasFate,
        checked: "SELECT count(*) FROM prepare",
        findings: concat!("SELECT 'the money of order ' || ", $hex!("p.order_id"), " || ' is ' || p.state \
                || ', the order is ' || coalesce(o.status, 'not there') \
             FROM prepare AS p LEFT JOIN orders AS o ON o.id = p.order_id \
             WHERE (p.state = 'posted' AND coalesce(o.status, '') NOT IN ('confirmed', 'cancelled')) \
                OR (p.state = 'void' AND o.status IN ('confirmed', 'cancelled'))"),
    },
    TableCheck {
        rule: Rule::RefundHasCancel,
        checked: "SELECT count(*) FROM credit",
        findings: concat!(
            "SELECT 'a refund of ' || r.amount || ' for cancel ' || r.no || ' of order ' || ", $hex!("r.order_id"), " \
                || ' came in, the cancel refunds ' || coalesce(CAST(n.refund AS text), 'nothing') \
             FROM credit AS r \
             LEFT JOIN cancellation AS n ON n.order_id = r.order_id AND n.no = r.no \
             LEFT JOIN transfer AS t ON t.user_id = r.user_id AND t.seq = r.seq \
             WHERE NOT coalesce(n.user_id = r.user_id AND n.refund = r.amount \
                 AND t.cause = 'refund' AND t.cause_id = r.order_id AND t.amount = r.amount \
                 AND t.debit = 'sales:' || ",
            $uuid!("n.timetable_id"),
            ", false) \
             UNION ALL \
             SELECT 'transfer ' || t.seq || ' of user ' || ", $hex!("t.user_id"), " || ' refunds ' || t.amount \
                || ' for no cancel' \
             FROM transfer AS t LEFT JOIN credit AS r ON r.user_id = t.user_id AND r.seq = t.seq \
             WHERE t.cause = 'refund' AND r.user_id IS NULL \
             UNION ALL \
             SELECT 'cancel ' || n.no || ' of order ' || ", $hex!("n.order_id"), " || ' refunds ' || n.refund \
                || ', which did not come in' \
             FROM cancellation AS n LEFT JOIN credit AS r \
               ON r.user_id = n.user_id AND r.order_id = n.order_id AND r.no = n.no \
             WHERE n.refund > 0 AND n.refunded_at IS NOT NULL AND r.user_id IS NULL"
        ),
    },
    TableCheck {
        rule: Rule::EpochsNeverGoBack,
        checked: "SELECT count(*) FROM entity",
        findings: concat!("SELECT entity.kind || ' ' || ", $hex!("entity.id"), " || ' is of epoch ' || entity.epoch \
                || ', its shard ' || entity.shard || ' of ' || coalesce(CAST(shard.epoch AS text), 'none') \
             FROM entity LEFT JOIN shard ON shard.id = entity.shard \
             WHERE shard.epoch IS NULL OR entity.epoch > shard.epoch"),
    },
    TableCheck {
        rule: Rule::VersionMatchesJournal,
        checked: "SELECT 0",
        findings: concat!("SELECT kind || ' ' || ", $hex!("id"), " || ' is no known kind of entity' FROM ( \
                 SELECT kind, id FROM entity UNION SELECT kind, entity FROM journal) AS known \
             WHERE kind NOT IN ('timetable', 'account', 'queue', 'coupon')"),
    },
    TableCheck {
        rule: Rule::ClaimFollowsOrder,
        checked: "SELECT count(*) FROM coupon_use",
        findings: concat!("SELECT 'order ' || ", $hex!("o.id"), " || ' is ' || o.status || ', its claim of coupon ' \
                || ", $hex!("o.coupon_id"), " || ' is ' || coalesce(u.state, 'not known') \
             FROM orders AS o LEFT JOIN coupon_use AS u ON u.coupon_id = o.coupon_id AND u.order_id = o.id \
             WHERE o.coupon_id IS NOT NULL AND (u.user_id IS DISTINCT FROM o.user_id \
                OR (o.status = 'confirmed' AND u.state NOT IN ('prepared', 'posted')) \
                OR (o.status = 'cancelled' AND u.state <> 'returned' AND NOT EXISTS ( \
                    SELECT 1 FROM cancellation AS c WHERE c.order_id = o.id AND c.refunded_at IS NULL))) \
             UNION ALL \
             SELECT 'a claim of coupon ' || ", $hex!("u.coupon_id"), " || ' is used by order ' || ", $hex!("u.order_id"), " \
                || ', which is not confirmed with it' \
             FROM coupon_use AS u LEFT JOIN orders AS o ON o.id = u.order_id AND o.coupon_id = u.coupon_id \
             WHERE u.state = 'posted' AND o.id IS NULL"),
    },
    TableCheck {
        rule: Rule::OutboxIsWhole,
        checked: "SELECT count(*) FROM outbox",
        findings: concat!("SELECT 'the ' || count(*) || ' events of ' || ", $hex!("entity"), " || ' on ' || topic \
                || ' are numbered from ' || min(event_seq) || ' to ' || max(event_seq) \
             FROM outbox GROUP BY entity, topic \
             HAVING min(event_seq) <> 1 OR max(event_seq) <> count(*)"),
    },
    TableCheck {
        rule: Rule::OneOutcome,
        checked: "SELECT count(*) FROM idempotency WHERE order_id IS NOT NULL",
        findings: concat!("SELECT 'a key of user ' || ", $hex!("i.user_id"), " || ' waits for order ' \
                || ", $hex!("i.order_id"), " || ', for which no money was set aside' \
             FROM idempotency AS i LEFT JOIN prepare AS p ON p.order_id = i.order_id \
             WHERE i.order_id IS NOT NULL AND (p.user_id IS DISTINCT FROM i.user_id \
                OR p.timetable_id IS DISTINCT FROM i.timetable_id)"),
    },
]
    };
}

const SQLITE: &[TableCheck] = checks!(sqlite_hex, sqlite_uuid);
const POSTGRES: &[TableCheck] = checks!(postgres_hex, postgres_uuid);

const UNPOSTED: &str = "SELECT count(*) FROM prepare JOIN orders ON orders.id = order_id \
    WHERE state = 'prepared' AND orders.status IN ('confirmed', 'cancelled')";

const UNDECIDED: &str = "SELECT count(*) FROM prepare LEFT JOIN orders ON orders.id = order_id \
    WHERE state = 'prepared' AND coalesce(orders.status, '') NOT IN ('confirmed', 'cancelled')";

const UNREFUNDED: &str = "SELECT count(*) FROM cancellation WHERE refunded_at IS NULL";

const UNPUBLISHED: &str = "SELECT count(*) FROM outbox WHERE published_at IS NULL";

/// Checks the tables, and counts what is on its way.
pub(super) async fn audit(c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
    let checks = match c {
        Snapshot::Sqlite(_) => SQLITE,
        Snapshot::Postgres(_) => POSTGRES,
    };
    for TableCheck {
        rule,
        checked,
        findings,
    } in checks
    {
        let checked = c.count(checked).await?;
        book.checked(*rule, checked);
        let mut rows = c.rows(findings, &[]);
        while let Some(row) = rows.try_next().await? {
            let finding: String = row.get(0)?;
            book.found(*rule, || finding);
        }
    }
    book.waiting.unposted = c.count(UNPOSTED).await?;
    book.waiting.undecided = c.count(UNDECIDED).await?;
    book.waiting.unrefunded = c.count(UNREFUNDED).await?;
    book.waiting.unpublished = c.count(UNPUBLISHED).await?;
    Ok(())
}
