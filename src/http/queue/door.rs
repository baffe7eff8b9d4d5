//! The door of a waiting room: what somebody without a place has to show to get
//! one, where the operator wants that. Off by default.
//!
//! * `proof`: a proof of work, checked by signature and one hash.
//! * `human`: a check by an outside service whether it is a person.
//! * `breaker`: leaves that service alone while it is away.
//!
//! It keeps nothing of anybody: not who was given a challenge, nor who was
//! checked. What is shown is bound to its user, who has one place at most, so
//! that to show it twice gains nothing.

mod breaker;
mod human;
mod proof;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use self::human::HumanCheck;
use self::proof::Proofs;
use crate::app::{App, unexpected};
use crate::config;
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::queue::{Claim, Command, Reply, Standing, State};
use crate::http::error::{Answer, Code, Problem};

/// The headers that carry what newcomers show.
const PROOF_OF_WORK: &str = "proof-of-work";
const HUMAN_CHECK: &str = "human-check";

/// What is asked of newcomers on this node.
#[derive(Debug, Default)]
pub struct Door {
    proofs: Option<Proofs>,
    humans: Option<HumanCheck>,
}

impl Door {
    /// As configured.
    #[must_use]
    pub fn new(config: &config::Queue) -> Self {
        let proof = &config.proof_of_work;
        let human = &config.human_check;
        Self {
            proofs: proof.enabled.then(|| Proofs::new(proof)),
            humans: (!human.url.is_empty()).then(|| HumanCheck::new(human)),
        }
    }

    /// Asks `user`, who wants to join, for what they have to show. Who has a
    /// place needs nothing, and is told how they stand; `None`: they may join.
    ///
    /// # Errors
    /// 428 and 403 if something is missing or wrong; 503 where it can't be told.
    pub(super) async fn knock(
        &self,
        app: &App,
        (id, user): (PerformanceId, UserId),
        claim: Option<Claim>,
        shown: &Shown,
    ) -> Answer<Option<Standing>> {
        if self.proofs.is_none() && self.humans.is_none() {
            return Ok(None);
        }
        // Boxed: where nothing is asked, no call carries the room for it.
        Box::pin(self.ask_for(app, (id, user), claim, shown)).await
    }

    async fn ask_for(
        &self,
        app: &App,
        (id, user): (PerformanceId, UserId),
        claim: Option<Claim>,
        shown: &Shown,
    ) -> Answer<Option<Standing>> {
        // What is wrong is refused before anybody is asked about it.
        let challenge = match &self.proofs {
            None => None,
            Some(proofs) => proofs.examine(app, id, user, shown.proof.as_deref())?,
        };
        if challenge.is_none() && self.humans.is_none() {
            return Ok(None);
        }
        // Costs no more than the polls that anybody may make.
        if let Some(standing) = place_of(app, id, user, claim).await? {
            return Ok(Some(standing));
        }
        match (challenge, &self.humans) {
            (Some(required), _) => Err(required),
            (None, None) => Ok(None),
            (None, Some(humans)) => {
                let now = || app.clock.now();
                humans.check(shown.token.as_deref(), now).await?;
                Ok(None)
            }
        }
    }
}

/// How a user with a place stands; who has left, or was too late, has none.
async fn place_of(
    app: &App,
    id: PerformanceId,
    user: UserId,
    claim: Option<Claim>,
) -> Answer<Option<Standing>> {
    match app.ask_queue(id, Command::State { user, claim }).await {
        Ok(Reply::Standing(standing)) => Ok(match standing.state {
            State::PreQueue | State::Waiting | State::Admitted | State::Closed => Some(standing),
            State::Expired | State::Left => None,
        }),
        Ok(other) => Err(unexpected(&other)),
        Err(problem) if problem.code() == Code::NotInQueue => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// What a call shows at the door, if anything, as text.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    proof: Option<String>,
    token: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Shown {
    type Rejection = Problem;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        let text = |name: &str| {
            let value = parts.headers.get(name)?;
            // What isn't text is no more than that something was shown.
            Some(value.to_str().unwrap_or_default().to_owned())
        };
        std::future::ready(Ok(Self {
            proof: text(PROOF_OF_WORK),
            token: text(HUMAN_CHECK),
        }))
    }
}
