//! What is known of one place.

use std::ops::Range;

use super::{
    Call, Finding, Findings, Kill, Millis, Record, Rules, SKEW, State, User, WRITTEN_BEHIND,
};

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) user: User,
    pub(super) number: u32,
    pub(super) first_told_at: Millis,
    /// The last acknowledgement that may have come from memory.
    acknowledged_at: Millis,
    /// When the last look was sent that saw it wait.
    seen_waiting: Option<Millis>,
    /// The same of inside.
    seen_inside: Option<Millis>,
    position: Option<u32>,
    pub(super) expires_at: Option<Millis>,
    /// When its user first asked for its end.
    pub(super) given_up_at: Option<Millis>,
    /// That was acknowledged, or seen.
    pub(super) ended: bool,
    pub(super) expired: bool,
    /// While the server, though it ran, couldn't know of it.
    pub(super) lost: Vec<Range<Millis>>,
}

impl Place {
    pub(super) fn new(user: User, number: u32, told_at: Millis) -> Self {
        Self {
            user,
            number,
            first_told_at: told_at,
            acknowledged_at: told_at,
            seen_waiting: None,
            seen_inside: None,
            position: None,
            expires_at: None,
            given_up_at: None,
            ended: false,
            expired: false,
            lost: Vec::new(),
        }
    }

    /// It is shown so.
    pub(super) fn update(&mut self, record: &Record, state: State, rules: Rules) -> Findings {
        let mut findings = Findings::new();
        let number = self.number;
        if record.call == Call::Restore {
            self.restored(record.told_at);
        }
        match state {
            State::Waiting { position } => {
                if self.ended || self.expires_at.is_some() {
                    findings.insert(Finding::WentBack { number });
                }
                if let Some(was) = self.position.filter(|was| *was < position) {
                    let is = position;
                    findings.insert(Finding::PositionGrew { number, was, is });
                }
                self.position = Some(position);
                self.seen_waiting = Some(record.sent_at);
            }
            State::Admitted { expires_at } => {
                if self.ended {
                    findings.insert(Finding::WentBack { number });
                }
                if *self.expires_at.get_or_insert(expires_at) != expires_at {
                    findings.insert(Finding::AdmittedTwice { number });
                }
                self.seen_inside = Some(record.sent_at);
            }
            State::Expired | State::Left => {
                self.expired |= state == State::Expired;
                if !self.ended && !self.may_end(record.told_at, state, rules) {
                    findings.insert(Finding::PutOut { number });
                }
                self.ended = true;
            }
        }
        findings
    }

    fn may_end(&self, now: Millis, state: State, rules: Rules) -> bool {
        if state == State::Left {
            return self.given_up_at.is_some();
        }
        // Only passes expire; one that nobody saw lived as long as others.
        let unseen = self.seen_waiting.map(|at| at + rules.ttl);
        let earliest = self.expires_at.or(unseen);
        earliest.is_none_or(|earliest| now + SKEW >= earliest)
    }

    /// The first of the kills until `now` that may have cost it.
    pub(super) fn may_be_lost_in(&self, kills: &[Kill], now: Millis) -> Option<Kill> {
        let fresh = self.acknowledged_at + WRITTEN_BEHIND;
        let mut kills = kills.iter().copied();
        kills.find(|kill| {
            let after = kill.at >= self.acknowledged_at - SKEW && kill.at <= now;
            kill.loses && after && kill.at < fresh
        })
    }

    pub(super) fn lose(&mut self, from: Millis) {
        let is_lost = self.lost.last().is_some_and(|lost| lost.end == Millis::MAX);
        if !is_lost {
            self.lost.push(from - SKEW..Millis::MAX);
        }
    }

    fn restored(&mut self, now: Millis) {
        if let Some(lost) = self.lost.last_mut()
            && lost.end == Millis::MAX
        {
            // Those who were about to enter by then are not held up.
            lost.end = now + WRITTEN_BEHIND;
            self.acknowledged_at = now;
        }
    }

    pub(super) fn was_lost_at(&self, at: Millis) -> bool {
        self.lost.iter().any(|lost| lost.contains(&at))
    }

    pub(super) fn granted_at(&self, rules: Rules) -> Option<Millis> {
        Some(self.expires_at? - rules.ttl)
    }

    /// It had not entered before this.
    pub(super) fn waited_until(&self, rules: Rules) -> Option<Millis> {
        let seen = self.seen_waiting.map(|at| at - SKEW);
        self.granted_at(rules).or(seen)
    }

    /// When it was inside, at least.
    pub(super) fn inside(&self, rules: Rules) -> Option<(Millis, Millis)> {
        let expires_at = self.expires_at?;
        let granted_at = self.granted_at(rules)?;
        let Some(given_up_at) = self.given_up_at else {
            return Some((granted_at, expires_at));
        };
        let seen = self.seen_inside.unwrap_or(given_up_at).max(given_up_at) - SKEW;
        Some((granted_at, seen.clamp(granted_at, expires_at)))
    }
}
