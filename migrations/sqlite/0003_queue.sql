-- State of the queue entities; a queue's id is its performance's.
CREATE TABLE queue (
    id             BLOB PRIMARY KEY,
    -- of the next newcomer
    next_number    INTEGER NOT NULL,
    reserved_upto  INTEGER NOT NULL,
    admitted_up_to INTEGER NOT NULL,
    admitted_total INTEGER NOT NULL,
    paused         INTEGER NOT NULL,
    draining       INTEGER NOT NULL,
    -- JSON: [[at, count], …], who entered within the window of the policy
    grants         TEXT    NOT NULL,
    -- JSON: [[first, last], …], numbers that were lost with an owner's memory
    gaps           TEXT    NOT NULL,
    -- of the draw; a secret until then
    seed           BLOB,
    -- JSON
    drawn          TEXT
) STRICT, WITHOUT ROWID;

-- Places, in the order of their tickets, which is nearly that of their numbers:
-- a load is one scan.
CREATE TABLE queue_place (
    queue_id   BLOB    NOT NULL,
    ticket_id  BLOB    NOT NULL,
    user_id    BLOB    NOT NULL,
    number     INTEGER,
    entrant    INTEGER NOT NULL,
    joined_at  INTEGER NOT NULL,
    -- waiting, admitted, active; expired, left, purchased, replaced
    state      TEXT    NOT NULL,
    granted_at INTEGER,
    -- when its pass ends, or would have ended
    pass_until INTEGER,
    ended_at   INTEGER,
    PRIMARY KEY (queue_id, ticket_id)
) STRICT, WITHOUT ROWID;
-- The second barrier behind the actor: a number is nobody else's.
CREATE UNIQUE INDEX a_number_is_given_once ON queue_place (queue_id, number)
    WHERE number IS NOT NULL;
-- Those that will be deleted; who took part in a draw stays.
CREATE INDEX queue_place_by_end ON queue_place (ended_at)
    WHERE ended_at IS NOT NULL AND NOT entrant;
