-- Seats of orders that were given back.
CREATE TABLE cancellation (
    order_id     BLOB    NOT NULL,
    -- of the order, from 1
    no           INTEGER NOT NULL CHECK (no > 0),
    timetable_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    -- names the request, for its repetitions
    request      INTEGER NOT NULL,
    -- JSON: [seat, …]
    seats        TEXT    NOT NULL,
    refund       INTEGER NOT NULL CHECK (refund >= 0),
    at           INTEGER NOT NULL,
    -- when the refund was known to be in the wallet; until then it is due
    refunded_at  INTEGER,
    CONSTRAINT a_cancel_is_numbered_once PRIMARY KEY (order_id, no)
) STRICT, WITHOUT ROWID;
CREATE INDEX cancellation_by_timetable ON cancellation (timetable_id);
CREATE INDEX cancellation_due ON cancellation (timetable_id) WHERE refunded_at IS NULL;

-- JSON: [seat, …], those of `seats` that were given back.
ALTER TABLE orders ADD COLUMN cancelled TEXT NOT NULL DEFAULT '[]';

-- Refunds that came in, of the account entities. The second barrier: none twice.
CREATE TABLE credit (
    user_id  BLOB    NOT NULL,
    order_id BLOB    NOT NULL,
    no       INTEGER NOT NULL,
    -- of its transfer
    seq      INTEGER NOT NULL,
    amount   INTEGER NOT NULL CHECK (amount > 0),
    at       INTEGER NOT NULL,
    CONSTRAINT a_refund_is_credited_once PRIMARY KEY (user_id, order_id, no)
) STRICT, WITHOUT ROWID;
CREATE INDEX credit_by_user ON credit (user_id, seq);
