-- The tables of a plain ticket shop, as the peer of benches/orders.rs has them:
-- those of the server that an order touches, with their indexes. A copy, so that
-- the peer stays as it is when the server's tables change.
CREATE TABLE hold (
    id           BLOB PRIMARY KEY,
    timetable_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    under_pass   INTEGER NOT NULL,
    seats        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_by_timetable ON hold (timetable_id);
CREATE TABLE orders (
    id           BLOB PRIMARY KEY,
    timetable_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    hold_id      BLOB    NOT NULL,
    payment_id   BLOB    NOT NULL,
    method       TEXT    NOT NULL,
    status       TEXT    NOT NULL,
    subtotal     INTEGER NOT NULL,
    discount     INTEGER NOT NULL,
    amount       INTEGER NOT NULL,
    refunded     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    seats        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_timetable ON orders (timetable_id);
CREATE TABLE sold_seat (
    timetable_id BLOB    NOT NULL,
    seat         INTEGER NOT NULL,
    order_id     BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    price        INTEGER NOT NULL,
    CONSTRAINT a_seat_is_sold_once PRIMARY KEY (timetable_id, seat)
) STRICT, WITHOUT ROWID;
CREATE TABLE wallet (
    user_id BLOB PRIMARY KEY,
    balance INTEGER NOT NULL,
    CONSTRAINT a_balance_is_never_below_zero CHECK (balance >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE transfer (
    user_id  BLOB    NOT NULL,
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    debit    TEXT    NOT NULL,
    credit   TEXT    NOT NULL,
    amount   INTEGER NOT NULL CHECK (amount > 0),
    cause    TEXT    NOT NULL,
    cause_id BLOB    NOT NULL,
    PRIMARY KEY (user_id, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    entity       BLOB    NOT NULL,
    topic        TEXT    NOT NULL,
    event_seq    INTEGER NOT NULL,
    event_id     BLOB    NOT NULL,
    type         TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    payload      TEXT    NOT NULL,
    published_at INTEGER,
    PRIMARY KEY (entity, topic, event_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_unpublished ON outbox (entity, topic, event_seq) WHERE published_at IS NULL;
