-- State of the queue entities; a queue's id is its performance's. Room on each
-- page lets an update stay there, without touching the indexes.
CREATE TABLE queue (
    id             uuid    PRIMARY KEY,
    -- of the next newcomer
    next_number    integer NOT NULL,
    reserved_upto  integer NOT NULL,
    admitted_up_to integer NOT NULL,
    admitted_total bigint  NOT NULL,
    paused         boolean NOT NULL,
    draining       boolean NOT NULL,
    -- JSON: [[at, count], …], who entered within the window of the policy
    grants         text    NOT NULL,
    -- JSON: [[first, last], …], numbers that were lost with an owner's memory
    gaps           text    NOT NULL,
    -- of the draw; a secret until then
    seed           bytea,
    -- JSON
    drawn          text
) WITH (fillfactor = 50);

CREATE TABLE queue_place (
    queue_id   uuid    NOT NULL,
    ticket_id  uuid    NOT NULL,
    user_id    uuid    NOT NULL,
    number     integer,
    entrant    boolean NOT NULL,
    joined_at  bigint  NOT NULL,
    state      text    NOT NULL CONSTRAINT a_state_of_a_place_is_known CHECK (state IN
        ('waiting', 'admitted', 'active', 'expired', 'left', 'purchased', 'replaced')),
    granted_at bigint,
    -- when its pass ends, or would have ended
    pass_until bigint,
    ended_at   bigint,
    PRIMARY KEY (queue_id, ticket_id)
) WITH (fillfactor = 70);
-- The second barrier behind the actor: a number is nobody else's.
CREATE UNIQUE INDEX a_number_is_given_once ON queue_place (queue_id, number)
    WHERE number IS NOT NULL;
-- Those that will be deleted; who took part in a draw stays.
CREATE INDEX queue_place_by_end ON queue_place (ended_at)
    WHERE ended_at IS NOT NULL AND NOT entrant;
