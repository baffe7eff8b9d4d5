-- The tables of a plain ticket shop on Postgres, as the peer of
-- benches/orders.rs has them: those of the server that an order touches, with
-- their indexes. A copy, so that the peer stays as it is when the server's
-- tables change.
CREATE TABLE hold (
    id           uuid    PRIMARY KEY,
    timetable_id uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    created_at   bigint  NOT NULL,
    expires_at   bigint  NOT NULL,
    under_pass   boolean NOT NULL,
    seats        text    NOT NULL
);
CREATE INDEX hold_by_timetable ON hold (timetable_id);
CREATE TABLE orders (
    id           uuid   PRIMARY KEY,
    timetable_id uuid   NOT NULL,
    user_id      uuid   NOT NULL,
    hold_id      uuid   NOT NULL,
    payment_id   uuid   NOT NULL,
    method       text   NOT NULL,
    status       text   NOT NULL,
    subtotal     bigint NOT NULL,
    discount     bigint NOT NULL,
    amount       bigint NOT NULL,
    refunded     bigint NOT NULL,
    created_at   bigint NOT NULL,
    seats        text   NOT NULL
);
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_timetable ON orders (timetable_id);
CREATE TABLE sold_seat (
    timetable_id uuid    NOT NULL,
    seat         integer NOT NULL,
    order_id     uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    price        bigint  NOT NULL,
    CONSTRAINT a_seat_is_sold_once PRIMARY KEY (timetable_id, seat)
);
CREATE TABLE wallet (
    user_id uuid   PRIMARY KEY,
    balance bigint NOT NULL,
    CONSTRAINT a_balance_is_never_below_zero CHECK (balance >= 0)
) WITH (fillfactor = 70);
CREATE TABLE transfer (
    user_id  uuid   NOT NULL,
    seq      bigint NOT NULL,
    at       bigint NOT NULL,
    debit    text   NOT NULL,
    credit   text   NOT NULL,
    amount   bigint NOT NULL CHECK (amount > 0),
    cause    text   NOT NULL,
    cause_id uuid   NOT NULL,
    PRIMARY KEY (user_id, seq)
);
CREATE TABLE outbox (
    entity       uuid    NOT NULL,
    topic        text    NOT NULL,
    event_seq    bigint  NOT NULL,
    event_id     uuid    NOT NULL,
    type         text    NOT NULL,
    version      integer NOT NULL,
    at           bigint  NOT NULL,
    payload      text    NOT NULL,
    published_at bigint,
    PRIMARY KEY (entity, topic, event_seq)
);
CREATE INDEX outbox_unpublished ON outbox (entity, topic, event_seq) WHERE published_at IS NULL;
