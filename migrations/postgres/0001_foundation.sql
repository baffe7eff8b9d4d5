-- Times are milliseconds since 1970 (UTC), money minor units. Tables that
-- batches write have no foreign keys: a batch touches rows of its own shards
-- only. What a column keeps as JSON is text: only the program looks into it.

-- Who may write: shards, their owners and epochs. Batches lock rows of `shard`
-- for sharing; signs of life are in `node`, so that none waits for a batch.
CREATE TABLE node (
    id          text   PRIMARY KEY,
    incarnation integer NOT NULL,
    address     text   NOT NULL,
    state       text   NOT NULL DEFAULT 'up'
        CONSTRAINT a_state_of_a_node_is_known CHECK (state IN ('up', 'draining')),
    -- When a node without a lease was last known to live.
    alive_at    bigint NOT NULL DEFAULT 0,
    -- Until when its shards are its own, by the clock of this database.
    lease_until timestamptz NOT NULL DEFAULT 'epoch'
);

CREATE TABLE shard (
    id          smallint PRIMARY KEY CONSTRAINT a_shard_is_one_of_1024 CHECK (id BETWEEN 0 AND 1023),
    owner       text    NOT NULL,
    incarnation integer NOT NULL,
    epoch       integer NOT NULL
);
CREATE INDEX shard_by_owner ON shard (owner);

-- The version of each entity's rows. A batch writes an entity's rows only if
-- its update of this row finds the version that it expects. Room on each page
-- lets the update stay there, without touching the index.
CREATE TABLE entity (
    id         uuid     NOT NULL,
    kind       text     NOT NULL,
    shard      smallint NOT NULL,
    epoch      integer  NOT NULL,
    activation integer  NOT NULL,
    seq        bigint   NOT NULL,
    PRIMARY KEY (id, kind)
) WITH (fillfactor = 70);

-- The history of each entity, one row a contribution.
CREATE TABLE journal (
    entity     uuid    NOT NULL,
    kind       text    NOT NULL,
    first_seq  bigint  NOT NULL,
    last_seq   bigint  NOT NULL,
    epoch      integer NOT NULL,
    activation integer NOT NULL,
    at         bigint  NOT NULL,
    -- postcard: a sequence of (seq, time, event)
    events     bytea   NOT NULL,
    PRIMARY KEY (entity, kind, first_seq)
);

CREATE TABLE outbox (
    entity       uuid     NOT NULL,
    shard        smallint NOT NULL,
    topic        text     NOT NULL,
    event_seq    bigint   NOT NULL,
    event_id     uuid     NOT NULL,
    type         text     NOT NULL,
    version      integer  NOT NULL,
    at           bigint   NOT NULL,
    payload      text     NOT NULL,
    published_at bigint,
    PRIMARY KEY (entity, topic, event_seq)
);
-- Small: an event leaves it once it is published.
CREATE INDEX outbox_unpublished ON outbox (entity, topic, event_seq) INCLUDE (shard)
    WHERE published_at IS NULL;

-- How far each consumer has come: at or below it is a repetition.
CREATE TABLE consumer_mark (
    consumer  text   NOT NULL,
    entity    uuid   NOT NULL,
    topic     text   NOT NULL,
    event_seq bigint NOT NULL,
    PRIMARY KEY (consumer, entity, topic)
);

-- People.
CREATE TABLE "user" (
    id            uuid   PRIMARY KEY,
    email         text   NOT NULL,
    name          text   NOT NULL,
    password_hash text   NOT NULL,
    -- JSON: ["customer", …]
    roles         text   NOT NULL,
    created_at    bigint NOT NULL,
    -- Access tokens made before this are dead (roles changed, user deleted).
    sessions_from bigint NOT NULL,
    deleted_at    bigint
);
CREATE UNIQUE INDEX user_email_is_unique ON "user" (email) WHERE deleted_at IS NULL;
-- Deleted ones too, for admins.
CREATE INDEX user_by_email ON "user" (email);
-- Whose tokens were revoked lately: read at the start.
CREATE INDEX user_by_sessions_from ON "user" (sessions_from) WHERE sessions_from > created_at;

CREATE TABLE session (
    id         uuid    PRIMARY KEY,
    user_id    uuid    NOT NULL,
    -- Which refresh token of the family is the live one, counted from 1.
    generation integer NOT NULL,
    created_at bigint  NOT NULL,
    expires_at bigint  NOT NULL,
    ended_at   bigint
);
CREATE INDEX session_by_user ON session (user_id);
CREATE INDEX session_by_expiry ON session (expires_at);
CREATE INDEX session_by_end ON session (ended_at) WHERE ended_at IS NOT NULL;

-- Keys that never leave the store, e.g. the one that signs tickets.
CREATE TABLE signing_key (
    purpose    text   NOT NULL,
    kid        text   NOT NULL,
    -- PKCS #8
    private    bytea  NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (purpose, kid)
);

-- The catalogue. (idem_user, idem_key): a repeated POST finds its first row.
CREATE TABLE venue (
    id         uuid    PRIMARY KEY,
    owner      uuid    NOT NULL,
    name       text    NOT NULL,
    time_zone  text    NOT NULL,
    -- JSON: the sections as the layout is built from them
    sections   text    NOT NULL,
    capacity   integer NOT NULL,
    created_at bigint  NOT NULL,
    idem_user  uuid,
    idem_key   text
);
CREATE UNIQUE INDEX venue_idempotency ON venue (idem_user, idem_key);

CREATE TABLE performance (
    id          uuid    PRIMARY KEY,
    owner       uuid    NOT NULL,
    venue_id    uuid    NOT NULL REFERENCES venue (id),
    title       text    NOT NULL,
    category    text    NOT NULL,
    -- JSON: [names]
    cast_names  text    NOT NULL,
    description text    NOT NULL,
    poster_url  text,
    currency    text    NOT NULL,
    -- JSON: [{name, price, sections, max_per_user, opens_at, closes_at}]
    grades      text    NOT NULL,
    opens_at    bigint  NOT NULL,
    closes_at   bigint  NOT NULL,
    -- JSON
    limits      text    NOT NULL,
    -- JSON, the waiting room's policy
    queue       text,
    draft       boolean NOT NULL,
    created_at  bigint  NOT NULL,
    deleted_at  bigint,
    idem_user   uuid,
    idem_key    text
);
CREATE UNIQUE INDEX performance_idempotency ON performance (idem_user, idem_key);

CREATE TABLE timetable (
    id             uuid   PRIMARY KEY,
    performance_id uuid   NOT NULL REFERENCES performance (id),
    starts_at      bigint NOT NULL,
    doors_at       bigint NOT NULL,
    created_at     bigint NOT NULL,
    cancelled_at   bigint,
    idem_user      uuid,
    idem_key       text
);
CREATE INDEX timetable_by_performance ON timetable (performance_id);
CREATE UNIQUE INDEX timetable_idempotency ON timetable (idem_user, idem_key);

-- Slugs that performances are filed under, made on first use.
CREATE TABLE category (
    slug       text   PRIMARY KEY,
    created_at bigint NOT NULL
);

-- Posters that were uploaded.
CREATE TABLE poster (
    performance_id uuid   PRIMARY KEY REFERENCES performance (id),
    version        text   NOT NULL,
    media_type     text   NOT NULL,
    bytes          bytea  NOT NULL,
    created_at     bigint NOT NULL
);

-- One view a viewer (a keyed hash of the user, else of the address) a day;
-- rows of past days are removed. Days first: a day's rows lie together.
CREATE TABLE performance_view (
    day            bigint NOT NULL,
    performance_id uuid   NOT NULL,
    viewer         bigint NOT NULL,
    PRIMARY KEY (day, performance_id, viewer)
);

-- How many there were, for good.
CREATE TABLE performance_day (
    performance_id uuid   NOT NULL,
    day            bigint NOT NULL,
    views          bigint NOT NULL,
    PRIMARY KEY (performance_id, day)
);

-- State of the timetable entities.
CREATE TABLE hold (
    id           uuid    PRIMARY KEY,
    timetable_id uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    created_at   bigint  NOT NULL,
    expires_at   bigint  NOT NULL,
    -- what it would be without the grace after restarts
    deadline     bigint  NOT NULL,
    under_pass   boolean NOT NULL,
    -- JSON: [[seat, price], …]
    seats        text    NOT NULL
);
CREATE INDEX hold_by_timetable ON hold (timetable_id);

CREATE TABLE blocked_seat (
    timetable_id uuid    NOT NULL,
    seat         integer NOT NULL,
    PRIMARY KEY (timetable_id, seat)
);

-- The second barrier behind the actor: a seat can't be sold twice.
CREATE TABLE sold_seat (
    timetable_id uuid    NOT NULL,
    seat         integer NOT NULL,
    order_id     uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    price        bigint  NOT NULL,
    CONSTRAINT a_seat_is_sold_once PRIMARY KEY (timetable_id, seat)
);

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
    -- JSON: [[seat, price], …]
    seats        text   NOT NULL
);
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_timetable ON orders (timetable_id);

-- Orders that were asked about and that nobody knew: they never come to be.
CREATE TABLE disowned_order (
    id           uuid PRIMARY KEY,
    timetable_id uuid NOT NULL
);
CREATE INDEX disowned_order_by_timetable ON disowned_order (timetable_id);

CREATE TABLE ticket (
    id           uuid    PRIMARY KEY,
    order_id     uuid    NOT NULL,
    seat         integer NOT NULL,
    timetable_id uuid    NOT NULL,
    user_id      uuid    NOT NULL,
    kid          text    NOT NULL,
    status       text    NOT NULL,
    issued_at    bigint  NOT NULL,
    CONSTRAINT a_seat_of_an_order_has_one_ticket UNIQUE (order_id, seat)
);
CREATE INDEX ticket_by_user ON ticket (user_id, id);

-- State of the account entities.
CREATE TABLE wallet (
    user_id uuid   PRIMARY KEY,
    balance bigint NOT NULL,
    CONSTRAINT a_balance_is_never_below_zero CHECK (balance >= 0)
) WITH (fillfactor = 70);

-- A transfer has both sides in one row, so the ledger sums to zero by
-- construction.
CREATE TABLE transfer (
    user_id  uuid   NOT NULL,
    seq      bigint NOT NULL,
    at       bigint NOT NULL,
    debit    text   NOT NULL,
    credit   text   NOT NULL,
    amount   bigint NOT NULL CONSTRAINT a_transfer_moves_something CHECK (amount > 0),
    cause    text   NOT NULL,
    cause_id uuid   NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- Money set aside for an order, until it is posted or void. A void row of an
-- order that was never prepared is a tombstone: it refuses a later prepare.
CREATE TABLE prepare (
    user_id      uuid   NOT NULL,
    order_id     uuid   NOT NULL,
    timetable_id uuid   NOT NULL,
    amount       bigint NOT NULL,
    state        text   NOT NULL
        CONSTRAINT a_state_of_a_prepare_is_known CHECK (state IN ('prepared', 'posted', 'void')),
    at           bigint NOT NULL,
    PRIMARY KEY (user_id, order_id)
);
CREATE INDEX prepare_in_doubt ON prepare (user_id) WHERE state = 'prepared';

CREATE TABLE idempotency (
    user_id      uuid   NOT NULL,
    key          text   NOT NULL,
    -- hash of method, path and parsed body
    fingerprint  bigint NOT NULL,
    at           bigint NOT NULL,
    -- the order that decides the answer while it is not stored
    order_id     uuid,
    timetable_id uuid,
    status       integer,
    body         text,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_by_age ON idempotency (at);
