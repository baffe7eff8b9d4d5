//! Rows of queues, in columns.

use uuid::Uuid;

use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::queue::draw::Seed;
use crate::domain::queue::line::TicketNumber;
use crate::domain::queue::restore::{Gap, Grant, PlaceRow, PlaceState, QueueRow};
use crate::domain::queue::{Drawn, End};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;

/// What of a queue's row is kept as text or bytes.
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

    /// Puts what they say into a row.
    pub(in crate::persistence) fn put_into(self, row: &mut QueueRow) -> Result<(), StoreError> {
        let unreadable = |e: serde_json::Error| StoreError::Unreadable(e.to_string());
        let grants: Vec<(i64, u32)> = serde_json::from_str(&self.grants).map_err(unreadable)?;
        let gaps: Vec<(u32, u32)> = serde_json::from_str(&self.gaps).map_err(unreadable)?;
        let grant = |(at, count)| Grant {
            at: Timestamp(at),
            count,
        };
        let gap = |(from, upto)| Gap {
            from: TicketNumber(from),
            upto: TicketNumber(upto),
        };
        row.grants = grants.into_iter().map(grant).collect();
        row.gaps = gaps.into_iter().map(gap).collect();
        row.seed = self.seed.map(seed).transpose()?;
        let drawn = self.drawn.as_deref().map(serde_json::from_str::<Drawn>);
        row.drawn = drawn.transpose().map_err(unreadable)?;
        Ok(())
    }
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

/// A place as its columns are read.
pub(in crate::persistence) struct PlaceColumns<'a> {
    pub ticket: Uuid,
    pub user: Uuid,
    pub number: Option<u32>,
    pub entrant: bool,
    pub joined_at: i64,
    pub state: StateColumns<'a>,
}

impl PlaceColumns<'_> {
    pub(in crate::persistence) fn read(self) -> Result<PlaceRow, StoreError> {
        Ok(PlaceRow {
            ticket: QueueTicketId(self.ticket),
            user: UserId(self.user),
            number: self.number.map(TicketNumber),
            entrant: self.entrant,
            joined_at: Timestamp(self.joined_at),
            state: self.state.read()?,
        })
    }
}
