-- State of the coupon entities. Room on each page lets an update stay there,
-- without touching the index.
CREATE TABLE coupon (
    id             uuid    PRIMARY KEY,
    name           text    NOT NULL,
    discount_kind  text    NOT NULL,
    discount_value bigint  NOT NULL,
    stock          integer NOT NULL,
    claimed        integer NOT NULL,
    starts_at      bigint  NOT NULL,
    ends_at        bigint  NOT NULL,
    performance_id uuid,
    owner          uuid    NOT NULL,
    created_at     bigint  NOT NULL,
    -- The second barrier behind the actor.
    CONSTRAINT claims_are_within_the_stock CHECK (claimed BETWEEN 0 AND stock)
) WITH (fillfactor = 50);

-- Who has one: the key is the second barrier behind the actor.
CREATE TABLE coupon_claim (
    coupon_id  uuid   NOT NULL,
    user_id    uuid   NOT NULL,
    id         uuid   NOT NULL,
    claimed_at bigint NOT NULL,
    -- hash of the idempotency key of the request that made it
    key        bigint,
    CONSTRAINT a_coupon_is_claimed_once PRIMARY KEY (coupon_id, user_id)
);
CREATE INDEX coupon_claim_by_user ON coupon_claim (user_id, id);

-- Claims in orders: set aside, until they are posted or void. A void row of an
-- order that was never prepared is a tombstone: it refuses a later prepare.
CREATE TABLE coupon_use (
    coupon_id    uuid   NOT NULL,
    order_id     uuid   NOT NULL,
    user_id      uuid   NOT NULL,
    timetable_id uuid   NOT NULL,
    state        text   NOT NULL CONSTRAINT a_state_of_a_use_is_known CHECK (state IN
        ('prepared', 'posted', 'void', 'returned')),
    at           bigint NOT NULL,
    PRIMARY KEY (coupon_id, order_id)
);
-- One order at a time.
CREATE UNIQUE INDEX a_claim_is_used_once ON coupon_use (coupon_id, user_id)
    WHERE state IN ('prepared', 'posted');
CREATE INDEX coupon_use_in_doubt ON coupon_use (coupon_id) WHERE state = 'prepared';
-- The last ones of a coupon, which it gets back when it is loaded.
CREATE INDEX coupon_use_void ON coupon_use (coupon_id, order_id)
    WHERE state IN ('void', 'returned');
