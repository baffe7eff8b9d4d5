-- State of the coupon entities.
CREATE TABLE coupon (
    id             BLOB PRIMARY KEY,
    name           TEXT    NOT NULL,
    -- amount, percent
    discount_kind  TEXT    NOT NULL,
    discount_value INTEGER NOT NULL,
    stock          INTEGER NOT NULL,
    claimed        INTEGER NOT NULL,
    starts_at      INTEGER NOT NULL,
    ends_at        INTEGER NOT NULL,
    performance_id BLOB,
    owner          BLOB    NOT NULL,
    created_at     INTEGER NOT NULL,
    -- The second barrier behind the actor.
    CONSTRAINT claims_are_within_the_stock CHECK (claimed BETWEEN 0 AND stock)
) STRICT, WITHOUT ROWID;

-- Who has one: the key is the second barrier behind the actor.
CREATE TABLE coupon_claim (
    coupon_id  BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    id         BLOB    NOT NULL,
    claimed_at INTEGER NOT NULL,
    -- hash of the idempotency key of the request that made it
    key        INTEGER,
    PRIMARY KEY (coupon_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX coupon_claim_by_user ON coupon_claim (user_id, id);

-- Claims in orders: set aside, until they are posted or void. A void row of an
-- order that was never prepared is a tombstone: it refuses a later prepare.
CREATE TABLE coupon_use (
    coupon_id    BLOB    NOT NULL,
    order_id     BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    timetable_id BLOB    NOT NULL,
    -- prepared, posted, void, returned
    state        TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (coupon_id, order_id)
) STRICT, WITHOUT ROWID;
-- One order at a time.
CREATE UNIQUE INDEX a_claim_is_used_once ON coupon_use (coupon_id, user_id)
    WHERE state IN ('prepared', 'posted');
CREATE INDEX coupon_use_in_doubt ON coupon_use (coupon_id) WHERE state = 'prepared';
-- The last ones of a coupon, which it gets back when it is loaded.
CREATE INDEX coupon_use_void ON coupon_use (coupon_id, order_id)
    WHERE state IN ('void', 'returned');
