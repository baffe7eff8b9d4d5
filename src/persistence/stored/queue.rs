//! Rows of queues, in columns.

use futures_util::TryStreamExt as _;

use super::reader::{Reader, version};
use super::row::StoredRow;
use crate::domain::ids::{PerformanceId, QueueTicketId, UserId};
use crate::domain::queue::draw::Seed;
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::restore::{Gap, Grant, PlaceRow, PlaceState, QueueRow, QueueState};
use crate::domain::queue::{Drawn, End};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::entities::Loaded;

/// What of a queue's row is kept as text or bytes, to be written.
pub(in crate::persistence) struct QueueTexts {
    /// `[[at, count], …]`
    pub grants: String,
    /// `[[first, last], …]`
    pub gaps: String,
    pub seed: Option<Vec<u8>>,
    /// JSON.
    pub drawn: Option<String>,
}

impl QueueTexts {
    pub(in crate::persistence) fn of(row: &QueueRow) -> Self {
        let grants: Vec<(i64, u32)> = row.grants.iter().map(|g| (g.at.0, g.count)).collect();
        let gaps: Vec<(u32, u32)> = row.gaps.iter().map(|g| (g.from.0, g.upto.0)).collect();
        // Plain numbers and texts always serialise.
        Self {
            grants: serde_json::to_string(&grants).unwrap_or_default(),
            gaps: serde_json::to_string(&gaps).unwrap_or_default(),
            seed: row.seed.map(|seed| seed.0.to_vec()),
            drawn: row
                .drawn
                .map(|drawn| serde_json::to_string(&drawn).unwrap_or_default()),
        }
    }
}

/// Reads a queue, without the places that don't matter at `now`. It takes one
/// snapshot to do that.
pub(in crate::persistence) async fn load(
    c: &mut impl Reader,
    id: PerformanceId,
    now: Timestamp,
) -> Result<Loaded<QueueState>, StoreError> {
    let stamp = version(c, id.into()).await?.unwrap_or_default();
    let queue = c.one(QUEUE, &[id.0.into()]).await?;
    let queue = queue
        .as_ref()
        .map(queue_row)
        .transpose()?
        .unwrap_or_default();
    let mut places = Vec::new();
    let mut rows = c.rows(PLACES, &[id.0.into()]);
    while let Some(row) = rows.try_next().await? {
        let place = place(&row)?;
        if place.matters(&queue, now) {
            places.push(place);
        }
    }
    Ok(Loaded {
        state: QueueState { queue, places },
        stamp,
        last_event_seq: 0,
    })
}

/// One queue: its [`queue_row`].
pub(in crate::persistence) const QUEUE: &str = "SELECT next_number, reserved_upto, \
     admitted_up_to, admitted_total, paused, draining, grants, gaps, seed, drawn FROM queue \
     WHERE id = $1";

pub(in crate::persistence) fn queue_row(row: &impl StoredRow) -> Result<QueueRow, StoreError> {
    let grant = |(at, count)| Grant {
        at: Timestamp(at),
        count,
    };
    let gap = |(from, upto)| Gap {
        from: TicketNumber(from),
        upto: TicketNumber(upto),
    };
    let drawn: Option<String> = row.cell(9)?;
    let drawn = drawn.as_deref().map(serde_json::from_str::<Drawn>);
    Ok(QueueRow {
        next: row.unsigned(0).map(TicketNumber)?,
        reserved_upto: row.unsigned(1).map(TicketNumber)?,
        admitted_up_to: row.unsigned(2).map(TicketNumber)?,
        admitted_total: row.unsigned_long(3)?,
        paused: row.cell(4)?,
        draining: row.cell(5)?,
        grants: row.json::<Vec<_>>(6)?.into_iter().map(grant).collect(),
        gaps: row.json::<Vec<_>>(7)?.into_iter().map(gap).collect(),
        seed: row.cell::<Option<Vec<u8>>>(8)?.map(seed).transpose()?,
        drawn: drawn
            .transpose()
            .map_err(|error| StoreError::Unreadable(error.to_string()))?,
    })
}

fn seed(bytes: Vec<u8>) -> Result<Seed, StoreError> {
    let seed = <[u8; 32]>::try_from(bytes);
    seed.map(Seed)
        .map_err(|bytes| StoreError::Unreadable(format!("a seed of {} bytes", bytes.len())))
}

/// How a place stands, in columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::persistence) struct StateColumns<'a> {
    pub state: &'a str,
    pub granted_at: Option<i64>,
    pub pass_until: Option<i64>,
    pub ended_at: Option<i64>,
}

/// The name of an end.
pub(in crate::persistence) fn end_name(end: End) -> &'static str {
    match end {
        End::Expired => "expired",
        End::Left => "left",
        End::Purchased => "purchased",
        End::Replaced => "replaced",
    }
}

impl From<PlaceState> for StateColumns<'static> {
    fn from(state: PlaceState) -> Self {
        let at = |state, granted: Option<Timestamp>, pass: Option<Timestamp>, ended| Self {
            state,
            granted_at: granted.map(|at| at.0),
            pass_until: pass.map(|at| at.0),
            ended_at: Option::map(ended, |at: Timestamp| at.0),
        };
        match state {
            PlaceState::Waiting => at("waiting", None, None, None),
            PlaceState::Admitted => at("admitted", None, None, None),
            PlaceState::Active {
                granted_at,
                expires_at,
            } => at("active", Some(granted_at), Some(expires_at), None),
            PlaceState::Ended {
                end,
                at: ended_at,
                pass_until,
            } => at(end_name(end), None, Some(pass_until), Some(ended_at)),
        }
    }
}

impl StateColumns<'_> {
    fn read(self) -> Result<PlaceState, StoreError> {
        let ended = |end| {
            let (at, pass_until) = self.ended_at.zip(self.pass_until)?;
            Some(PlaceState::Ended {
                end,
                at: Timestamp(at),
                pass_until: Timestamp(pass_until),
            })
        };
        let active = || {
            let (granted_at, expires_at) = self.granted_at.zip(self.pass_until)?;
            Some(PlaceState::Active {
                granted_at: Timestamp(granted_at),
                expires_at: Timestamp(expires_at),
            })
        };
        let state = match self.state {
            "waiting" => Some(PlaceState::Waiting),
            "admitted" => Some(PlaceState::Admitted),
            "active" => active(),
            "expired" => ended(End::Expired),
            "left" => ended(End::Left),
            "purchased" => ended(End::Purchased),
            "replaced" => ended(End::Replaced),
            _ => None,
        };
        state.ok_or_else(|| StoreError::Unreadable(format!("the state of a place: {self:?}")))
    }
}

/// The places of a queue, each a [`place`].
pub(in crate::persistence) const PLACES: &str = "SELECT ticket_id, user_id, number, entrant, \
     joined_at, state, granted_at, pass_until, ended_at FROM queue_place WHERE queue_id = $1";

pub(in crate::persistence) fn place(row: &impl StoredRow) -> Result<PlaceRow, StoreError> {
    let number = row.cell::<Option<i32>>(2)?;
    let state = StateColumns {
        state: row.text(5)?,
        granted_at: row.cell(6)?,
        pass_until: row.cell(7)?,
        ended_at: row.cell(8)?,
    };
    Ok(PlaceRow {
        ticket: QueueTicketId(row.cell(0)?),
        user: UserId(row.cell(1)?),
        number: number.map(|number| TicketNumber(number.cast_unsigned())),
        entrant: row.cell(3)?,
        joined_at: row.time(4)?,
        state: state.read()?,
    })
}
