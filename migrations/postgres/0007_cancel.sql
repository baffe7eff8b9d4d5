-- Seats of orders that were given back.
CREATE TABLE cancellation (
    order_id     uuid    NOT NULL,
    -- of the order, from 1
    no           integer NOT NULL CONSTRAINT a_cancel_has_a_number CHECK (no > 0),
    timetable_id uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    -- names the request, for its repetitions
    request      bigint  NOT NULL,
    -- JSON: [seat, …]
    seats        text    NOT NULL,
    refund       bigint  NOT NULL CONSTRAINT a_refund_is_never_below_zero CHECK (refund >= 0),
    at           bigint  NOT NULL,
    -- when the refund was known to be in the wallet; until then it is due
    refunded_at  bigint,
    CONSTRAINT a_cancel_is_numbered_once PRIMARY KEY (order_id, no)
);
CREATE INDEX cancellation_by_timetable ON cancellation (timetable_id);
CREATE INDEX cancellation_due ON cancellation (timetable_id) WHERE refunded_at IS NULL;

-- JSON: [seat, …], those of `seats` that were given back.
ALTER TABLE orders ADD COLUMN cancelled text NOT NULL DEFAULT '[]';

-- Refunds that came in, of the account entities. The second barrier: none twice.
CREATE TABLE credit (
    user_id  uuid    NOT NULL,
    order_id uuid    NOT NULL,
    no       integer NOT NULL,
    -- of its transfer
    seq      bigint  NOT NULL,
    amount   bigint  NOT NULL CONSTRAINT a_credit_is_more_than_nothing CHECK (amount > 0),
    at       bigint  NOT NULL,
    CONSTRAINT a_refund_is_credited_once PRIMARY KEY (user_id, order_id, no)
);
CREATE INDEX credit_by_user ON credit (user_id, seq);
