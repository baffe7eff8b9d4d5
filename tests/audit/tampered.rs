//! An audit that finds nothing proves nothing, unless it can find.

use super::*;
use onsale::persistence::verify::FINDINGS_SHOWN_MAX;

/// The invariants that an audit found broken, each once, in order.
pub(super) fn broken(report: &Report) -> String {
    let mut names: Vec<&str> = report
        .checks
        .iter()
        .filter(|c| c.found > 0)
        .map(|c| c.invariant)
        .collect();
    names.dedup();
    names.join(" ")
}

/// Each tampering, and what it breaks. A row that several conditions speak of
/// may break several.
const TAMPERINGS: &[(&str, &str)] = &[
    // Seats.
    (
        "UPDATE sold_seat SET order_id = (SELECT order_id FROM sold_seat WHERE seat = 4) \
      WHERE seat = 1",
        "I1",
    ),
    (
        "UPDATE sold_seat SET price = price - 1 WHERE seat = 0",
        "I1",
    ),
    (
        "UPDATE sold_seat SET user_id = randomblob(16) WHERE seat = 0",
        "I1",
    ),
    ("UPDATE sold_seat SET seat = 9 WHERE seat = 0", "I1"),
    ("DELETE FROM sold_seat WHERE seat = 4", "I1"),
    (
        "INSERT INTO sold_seat SELECT timetable_id, 12, order_id, user_id, price FROM sold_seat \
      WHERE seat = 0",
        "I1",
    ),
    (
        "INSERT INTO ticket SELECT x'00', order_id, 12, timetable_id, user_id, kid, status, 0 \
      FROM ticket LIMIT 1",
        "I1",
    ),
    (
        "UPDATE ticket SET user_id = (SELECT user_id FROM ticket WHERE seat = 4) WHERE seat = 0",
        "I1",
    ),
    (
        "INSERT INTO blocked_seat SELECT timetable_id, 14 FROM sold_seat LIMIT 1",
        "I2",
    ),
    ("DELETE FROM blocked_seat", "I2"),
    (
        "UPDATE venue SET sections = replace(sections, '4', '3')",
        "I2",
    ),
    // Cancels.
    (
        "INSERT INTO sold_seat SELECT timetable_id, 11, order_id, user_id, price FROM sold_seat \
      WHERE seat = 13",
        "I1",
    ),
    ("UPDATE ticket SET status = 'valid' WHERE seat = 11", "I1"),
    ("UPDATE ticket SET status = 'void' WHERE seat = 13", "I1 I9"),
    ("DELETE FROM cancellation WHERE seats = '[11]'", "I7 I9"),
    (
        "UPDATE cancellation SET refund = refund + 1 WHERE seats = '[11]'",
        "I7 I9",
    ),
    ("UPDATE cancellation SET request = request + 1", "I7"),
    (
        "UPDATE cancellation SET refunded_at = NULL WHERE seats = '[11]'",
        "I7",
    ),
    (
        "UPDATE orders SET refunded = refunded - 1 WHERE refunded > 0",
        "I3",
    ),
    (
        "UPDATE orders SET cancelled = '[12]' WHERE cancelled = '[12,11]'",
        "I1 I3 I9",
    ),
    (
        "UPDATE orders SET status = 'confirmed' WHERE status = 'cancelled'",
        "I3",
    ),
    (
        "UPDATE orders SET status = 'cancelled' WHERE cancelled = '[12,11]'",
        "I3",
    ),
    ("DELETE FROM credit", "I7"),
    ("UPDATE credit SET amount = amount - 1", "I7"),
    (
        "INSERT INTO credit SELECT user_id, order_id, 9, seq, amount, at FROM credit LIMIT 1",
        "I7",
    ),
    ("DELETE FROM transfer WHERE cause = 'refund'", "I7"),
    (
        "UPDATE transfer SET cause = 'refund' WHERE cause = 'charge'",
        "I7",
    ),
    (
        "UPDATE transfer SET debit = 'sales:nobody' WHERE cause = 'refund'",
        "I7",
    ),
    (
        "UPDATE outbox SET payload = replace(payload, '\"refund\":1000', '\"refund\":1001') \
      WHERE type = 'order.cancelled'",
        "I9",
    ),
    (
        "UPDATE outbox SET type = 'order.other' WHERE type = 'order.cancelled'",
        "I9",
    ),
    // Holds and orders.
    ("UPDATE hold SET expires_at = expires_at + 1", "I3"),
    ("UPDATE hold SET seats = '[[0,1000]]'", "I2 I3"),
    ("DELETE FROM hold", "I3"),
    (
        "UPDATE orders SET hold_id = payment_id WHERE amount = 1000",
        "I3",
    ),
    ("DELETE FROM disowned_order", "I3"),
    (
        "UPDATE orders SET seats = '[]' WHERE amount = 1000",
        "I1 I2 I3 I7 I9",
    ),
    ("DELETE FROM orders WHERE amount = 1000", "I1 I3 I7 I9"),
    // Coupons.
    ("UPDATE coupon SET claimed = claimed - 1", "I5"),
    ("UPDATE coupon SET stock = stock + 1", "I6"),
    ("UPDATE coupon SET discount_value = 90", "I6"),
    ("DELETE FROM coupon", "I5 I6"),
    (
        "DELETE FROM coupon_claim WHERE id IN (SELECT id FROM coupon_claim ORDER BY id DESC LIMIT 1)",
        "I5 I6",
    ),
    (
        "UPDATE coupon_claim SET user_id = randomblob(16) WHERE id IN (SELECT id FROM coupon_claim LIMIT 1)",
        "I6",
    ),
    (
        "INSERT INTO coupon_claim SELECT coupon_id, randomblob(16), id, claimed_at, key \
      FROM coupon_claim LIMIT 1",
        "I5 I6",
    ),
    (
        "UPDATE coupon_use SET state = 'posted' WHERE state = 'returned'",
        "I6 I7",
    ),
    (
        "UPDATE coupon_use SET state = 'void' WHERE state = 'posted'",
        "I6 I7",
    ),
    ("DELETE FROM coupon_use WHERE state = 'posted'", "I6 I7"),
    (
        "UPDATE orders SET coupon_id = NULL WHERE coupon_id IS NOT NULL",
        "I3 I7",
    ),
    ("DELETE FROM coupon_use WHERE state = 'void'", "I6"),
    // Money.
    (
        "UPDATE orders SET discount = 1 WHERE amount = 1000",
        "I3 I7",
    ),
    (
        "UPDATE orders SET amount = amount - 1, subtotal = subtotal - 1 WHERE amount = 1000",
        "I7 I9",
    ),
    (
        "UPDATE wallet SET balance = balance + 1 WHERE balance = 47000",
        "I7",
    ),
    ("DELETE FROM wallet WHERE balance = 47000", "I7"),
    (
        "DELETE FROM transfer WHERE cause = 'order' AND amount = 1000",
        "I7",
    ),
    (
        "UPDATE transfer SET amount = amount + 1 WHERE cause = 'charge'",
        "I7",
    ),
    (
        "UPDATE transfer SET credit = debit, debit = credit WHERE cause = 'charge'",
        "I7",
    ),
    (
        "UPDATE prepare SET state = 'void' WHERE amount = 1000",
        "I7",
    ),
    (
        "UPDATE prepare SET state = 'prepared' WHERE amount = 1000",
        "I7",
    ),
    (
        "UPDATE prepare SET amount = 60000, state = 'prepared' WHERE amount = 0",
        "I7",
    ),
    ("DELETE FROM prepare WHERE amount = 0", "I7"),
    // Versions, the journal and the outbox.
    (
        "UPDATE entity SET seq = seq - 1 WHERE kind = 'timetable'",
        "I9",
    ),
    (
        "UPDATE entity SET activation = 2 WHERE kind = 'account'",
        "I9",
    ),
    ("UPDATE entity SET epoch = 9 WHERE kind = 'timetable'", "I9"),
    (
        "UPDATE entity SET shard = (shard + 1) % 1024 WHERE kind = 'timetable'",
        "I9",
    ),
    ("DELETE FROM entity WHERE kind = 'account'", "I9"),
    ("UPDATE shard SET epoch = 0", "I9"),
    (
        "DELETE FROM journal WHERE kind = 'timetable' AND first_seq = 2",
        "I9",
    ),
    (
        "DELETE FROM journal WHERE kind = 'account' AND first_seq = 2",
        "I9",
    ),
    (
        "DELETE FROM journal WHERE kind = 'timetable' AND first_seq = 1",
        "I9",
    ),
    (
        "UPDATE journal SET events = substr(events, 1, length(events) - 1) \
      WHERE kind = 'timetable' AND first_seq = 1",
        "I9",
    ),
    (
        "UPDATE journal SET events = x'' WHERE kind = 'account' AND first_seq = 1",
        "I9",
    ),
    (
        "UPDATE journal SET events = CAST(events || events AS BLOB) WHERE kind = 'account' AND first_seq = 2",
        "I7",
    ),
    (
        "UPDATE journal SET epoch = 2 WHERE kind = 'timetable' AND first_seq = 1",
        "I9",
    ),
    (
        "UPDATE journal SET kind = 'voucher' WHERE kind = 'account' AND first_seq = 3",
        "I9",
    ),
    (
        "UPDATE outbox SET event_seq = 99 WHERE event_seq = 2 AND topic = 'onsale.orders'",
        "I9",
    ),
    ("DELETE FROM outbox WHERE event_seq = 2", "I9"),
    (
        "UPDATE outbox SET payload = replace(payload, ':1000', ':1001')",
        "I9",
    ),
    ("UPDATE outbox SET payload = 'x' WHERE event_seq = 1", "I9"),
    ("DELETE FROM ticket WHERE seat = 1", "I9"),
    // Queues.
    ("UPDATE queue SET next_number = next_number - 1", "I8"),
    ("UPDATE queue SET reserved_upto = 3", "I8"),
    ("UPDATE queue SET admitted_up_to = admitted_up_to - 1", "I8"),
    ("UPDATE queue SET admitted_total = 0", "I8"),
    ("UPDATE queue SET draining = false", "I8"),
    ("UPDATE queue SET grants = '[]'", "I8"),
    ("UPDATE queue SET gaps = '[]'", "I8"),
    ("UPDATE queue SET seed = randomblob(32)", "I8"),
    ("UPDATE queue SET drawn = NULL", "I8"),
    ("DELETE FROM queue", "I8"),
    ("DELETE FROM queue_place WHERE state = 'waiting'", "I8"),
    (
        "DELETE FROM queue_place WHERE entrant AND ended_at IS NOT NULL",
        "I8",
    ),
    (
        "UPDATE queue_place SET user_id = randomblob(16) WHERE state = 'waiting'",
        "I8",
    ),
    (
        "UPDATE queue_place SET state = 'waiting', granted_at = NULL, pass_until = NULL \
      WHERE state = 'active'",
        "I8",
    ),
    (
        "UPDATE queue_place SET pass_until = pass_until + 1000 WHERE state = 'active'",
        "I8",
    ),
    (
        "UPDATE queue_place SET joined_at = joined_at + 1 WHERE state = 'waiting'",
        "I8",
    ),
    (
        "DROP INDEX a_number_is_given_once; \
      UPDATE queue_place SET number = 1 WHERE state = 'waiting'",
        "I8",
    ),
    (
        "INSERT INTO queue_place SELECT queue_id, randomblob(16), user_id, NULL, false, joined_at, \
      state, NULL, NULL, NULL FROM queue_place WHERE state = 'waiting'",
        "I8",
    ),
    ("UPDATE entity SET seq = seq + 1 WHERE kind = 'queue'", "I9"),
    (
        "DELETE FROM journal WHERE kind = 'queue' AND first_seq = 2",
        "I9",
    ),
    // Idempotency.
    (
        "UPDATE idempotency SET status = 201, body = '' WHERE key = 'order-1'",
        "I10",
    ),
    (
        "UPDATE idempotency SET status = NULL, body = NULL WHERE key = 'refused'",
        "I10",
    ),
    (
        "UPDATE idempotency SET body = '{ }' WHERE key = 'refused'",
        "I10",
    ),
    (
        "UPDATE idempotency SET fingerprint = 3 WHERE key = 'a'",
        "I10",
    ),
    (
        "UPDATE idempotency SET order_id = (SELECT order_id FROM prepare WHERE state = 'void') \
      WHERE key = 'order-1'",
        "I10",
    ),
];

on_both_stores!(
    each_tampering_is_found_as_what_it_breaks,
    findings_are_bounded_and_all_are_counted,
);

async fn each_tampering_is_found_as_what_it_breaks(place: Place) {
    let world = World::busy(place).await;
    world.store.close().await;
    let mut wrong = Vec::new();
    for (sql, expected) in TAMPERINGS {
        let copy = Copied::of(&world).await;
        let changed = execute(&copy.url, sql).await;
        assert!(changed > 0, "{sql} changed nothing");
        let report = audit_of(&copy.url).await;
        if broken(&report) != *expected {
            wrong.push(format!("{sql}\nexpected {expected}, found\n{report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

async fn findings_are_bounded_and_all_are_counted(place: Place) {
    let world = World::busy(place).await;
    world
        .sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
             INSERT INTO ticket SELECT randomblob(16), randomblob(16), i, randomblob(16), \
                    randomblob(16), 'k', 'valid', 0 FROM n",
        )
        .await;
    let report = world.audit().await;
    let tickets = report.checks.iter().find(|check| check.found > 0).unwrap();
    assert_eq!(tickets.found, 500);
    assert_eq!(tickets.findings.len(), FINDINGS_SHOWN_MAX);
    assert!(report.to_string().contains("and 480 more"));
}
