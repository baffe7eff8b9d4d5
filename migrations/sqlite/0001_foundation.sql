-- Ids are the 16 bytes of a UUID, times milliseconds since 1970 (UTC), money
-- minor units. Tables that batches write have no foreign keys: a batch touches
-- rows of its own shards only.

-- Who may write: shards, their owners and epochs.
CREATE TABLE node (
    id          TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    address     TEXT    NOT NULL,
    -- When the node was last known to live; what it acknowledged later than
    -- that, it also wrote later than that.
    alive_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE shard (
    id          INTEGER PRIMARY KEY CHECK (id BETWEEN 0 AND 1023),
    owner       TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    epoch       INTEGER NOT NULL
) STRICT;

-- The version of each entity's rows. A batch writes an entity's rows only if
-- its update of this row finds the version that it expects.
CREATE TABLE entity (
    id         BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    shard      INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    activation INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    PRIMARY KEY (id, kind)
) STRICT, WITHOUT ROWID;

-- The history of each entity, one row a contribution.
CREATE TABLE journal (
    entity     BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    activation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    -- postcard: a sequence of (seq, time, event)
    events     BLOB    NOT NULL,
    PRIMARY KEY (entity, kind, first_seq)
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

-- How far each consumer has come: at or below it is a repetition.
CREATE TABLE consumer_mark (
    consumer  TEXT    NOT NULL,
    entity    BLOB    NOT NULL,
    topic     TEXT    NOT NULL,
    event_seq INTEGER NOT NULL,
    PRIMARY KEY (consumer, entity, topic)
) STRICT, WITHOUT ROWID;

-- People.
CREATE TABLE user (
    id            BLOB PRIMARY KEY,
    email         TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    -- JSON: ["customer", …]
    roles         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    -- Access tokens made before this are dead (roles changed, user deleted).
    sessions_from INTEGER NOT NULL,
    deleted_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX user_email_is_unique ON user (email) WHERE deleted_at IS NULL;
-- Deleted ones too, for admins.
CREATE INDEX user_by_email ON user (email);
-- Whose tokens were revoked lately: read at the start.
CREATE INDEX user_by_sessions_from ON user (sessions_from) WHERE sessions_from > created_at;

CREATE TABLE session (
    id         BLOB PRIMARY KEY,
    user_id    BLOB    NOT NULL,
    -- Which refresh token of the family is the live one, counted from 1.
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX session_by_user ON session (user_id);
CREATE INDEX session_by_expiry ON session (expires_at);
CREATE INDEX session_by_end ON session (ended_at) WHERE ended_at IS NOT NULL;

-- Keys that never leave the store, e.g. the one that signs tickets.
CREATE TABLE signing_key (
    purpose    TEXT    NOT NULL,
    kid        TEXT    NOT NULL,
    -- PKCS #8
    private    BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (purpose, kid)
) STRICT, WITHOUT ROWID;

-- The catalogue. (idem_user, idem_key): a repeated POST finds its first row.
CREATE TABLE venue (
    id         BLOB PRIMARY KEY,
    owner      BLOB    NOT NULL,
    name       TEXT    NOT NULL,
    time_zone  TEXT    NOT NULL,
    -- JSON: the sections as the layout is built from them
    sections   TEXT    NOT NULL,
    capacity   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    idem_user  BLOB,
    idem_key   TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX venue_idempotency ON venue (idem_user, idem_key);

CREATE TABLE performance (
    id          BLOB PRIMARY KEY,
    owner       BLOB    NOT NULL,
    venue_id    BLOB    NOT NULL REFERENCES venue (id),
    title       TEXT    NOT NULL,
    category    TEXT    NOT NULL,
    -- JSON: [names]
    cast_names  TEXT    NOT NULL,
    description TEXT    NOT NULL,
    poster_url  TEXT,
    currency    TEXT    NOT NULL,
    -- JSON: [{name, price, sections, max_per_user, opens_at, closes_at}]
    grades      TEXT    NOT NULL,
    opens_at    INTEGER NOT NULL,
    closes_at   INTEGER NOT NULL,
    -- JSON
    limits      TEXT    NOT NULL,
    -- JSON, the waiting room's policy
    queue       TEXT,
    draft       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    deleted_at  INTEGER,
    idem_user   BLOB,
    idem_key    TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX performance_idempotency ON performance (idem_user, idem_key);

CREATE TABLE timetable (
    id             BLOB PRIMARY KEY,
    performance_id BLOB    NOT NULL REFERENCES performance (id),
    starts_at      INTEGER NOT NULL,
    doors_at       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    cancelled_at   INTEGER,
    idem_user      BLOB,
    idem_key       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX timetable_by_performance ON timetable (performance_id);
CREATE UNIQUE INDEX timetable_idempotency ON timetable (idem_user, idem_key);

-- Slugs that performances are filed under, made on first use.
CREATE TABLE category (
    slug       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Posters that were uploaded. With rowids: a large picture has no place in the
-- tree of its key.
CREATE TABLE poster (
    performance_id BLOB    NOT NULL UNIQUE REFERENCES performance (id),
    version        TEXT    NOT NULL,
    media_type     TEXT    NOT NULL,
    bytes          BLOB    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

-- One view a viewer (a keyed hash of the user, else of the address) a day;
-- rows of past days are removed. Days first: a day's rows lie together.
CREATE TABLE performance_view (
    day            INTEGER NOT NULL,
    performance_id BLOB    NOT NULL,
    viewer         INTEGER NOT NULL,
    PRIMARY KEY (day, performance_id, viewer)
) STRICT, WITHOUT ROWID;

-- How many there were, for good.
CREATE TABLE performance_day (
    performance_id BLOB    NOT NULL,
    day            INTEGER NOT NULL,
    views          INTEGER NOT NULL,
    PRIMARY KEY (performance_id, day)
) STRICT, WITHOUT ROWID;

-- State of the timetable entities.
CREATE TABLE hold (
    id           BLOB PRIMARY KEY,
    timetable_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    -- what it would be without the grace after restarts
    deadline     INTEGER NOT NULL,
    under_pass   INTEGER NOT NULL,
    -- JSON: [[seat, price], …]
    seats        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_by_timetable ON hold (timetable_id);

CREATE TABLE blocked_seat (
    timetable_id BLOB    NOT NULL,
    seat         INTEGER NOT NULL,
    PRIMARY KEY (timetable_id, seat)
) STRICT, WITHOUT ROWID;

-- The second barrier behind the actor: a seat can't be sold twice.
CREATE TABLE sold_seat (
    timetable_id BLOB    NOT NULL,
    seat         INTEGER NOT NULL,
    order_id     BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    price        INTEGER NOT NULL,
    CONSTRAINT a_seat_is_sold_once PRIMARY KEY (timetable_id, seat)
) STRICT, WITHOUT ROWID;

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
    -- JSON: [[seat, price], …]
    seats        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_timetable ON orders (timetable_id);

-- Orders that were asked about and that nobody knew: they never come to be.
CREATE TABLE disowned_order (
    id           BLOB PRIMARY KEY,
    timetable_id BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX disowned_order_by_timetable ON disowned_order (timetable_id);

CREATE TABLE ticket (
    id           BLOB PRIMARY KEY,
    order_id     BLOB    NOT NULL,
    seat         INTEGER NOT NULL,
    timetable_id BLOB    NOT NULL,
    user_id      BLOB    NOT NULL,
    kid          TEXT    NOT NULL,
    status       TEXT    NOT NULL,
    issued_at    INTEGER NOT NULL,
    CONSTRAINT a_seat_of_an_order_has_one_ticket UNIQUE (order_id, seat)
) STRICT, WITHOUT ROWID;
CREATE INDEX ticket_by_user ON ticket (user_id, id);

-- State of the account entities.
CREATE TABLE wallet (
    user_id BLOB PRIMARY KEY,
    balance INTEGER NOT NULL,
    CONSTRAINT a_balance_is_never_below_zero CHECK (balance >= 0)
) STRICT, WITHOUT ROWID;

-- A transfer has both sides in one row, so the ledger sums to zero by
-- construction.
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

-- Money set aside for an order, until it is posted or void. A void row of an
-- order that was never prepared is a tombstone: it refuses a later prepare.
CREATE TABLE prepare (
    user_id      BLOB    NOT NULL,
    order_id     BLOB    NOT NULL,
    timetable_id BLOB    NOT NULL,
    amount       INTEGER NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('prepared', 'posted', 'void')),
    at           INTEGER NOT NULL,
    PRIMARY KEY (user_id, order_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX prepare_in_doubt ON prepare (user_id) WHERE state = 'prepared';

CREATE TABLE idempotency (
    user_id      BLOB    NOT NULL,
    key          TEXT    NOT NULL,
    -- hash of method, path and parsed body
    fingerprint  INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    -- the order that decides the answer while it is not stored
    order_id     BLOB,
    timetable_id BLOB,
    status       INTEGER,
    body         TEXT,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at);
