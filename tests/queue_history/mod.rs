//! What people in a waiting room did and were told, and the check of it.
//!
//! A call is recorded with the times at which it was sent and answered; one
//! whose answer never came may or may not have happened. From that follow
//! bounds of what was so on the server, and everything outside them is a
//! [`Finding`]. The check knows nothing of how the server works.

mod place;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use place::Place;

/// Index of a person.
pub(crate) type User = usize;

/// Milliseconds of the Unix epoch, or between two times.
pub(crate) type Millis = i64;

/// By how much the server's clock and that of its clients may differ: both are
/// of one machine.
pub(crate) const SKEW: Millis = 50;

/// A place that is acknowledged from memory is written within milliseconds; one
/// that was acknowledged so long before a crash must have survived it.
pub(crate) const WRITTEN_BEHIND: Millis = 1_000;

/// What the policy of the room allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// So many may be inside at once.
    pub(crate) cap: usize,
    /// So many may enter ...
    pub(crate) count: usize,
    /// ... within any such time.
    pub(crate) every: Millis,
    /// How long a pass lives; nothing renews it.
    pub(crate) ttl: Millis,
}

/// What somebody asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// A place.
    Join,
    /// Where they stand.
    Look,
    /// The same, with the ticket.
    Restore,
    /// To give the place or the pass up.
    Leave,
    /// Seats, with the pass.
    Hold,
    /// To buy them, which ends the pass.
    Buy,
}

/// How a place stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Waiting { position: u32 },
    Admitted { expires_at: Millis },
    Expired,
    Left,
}

/// A place, as somebody was shown it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    pub(crate) number: u32,
    /// This call made it.
    pub(crate) is_new: bool,
    pub(crate) state: State,
}

/// What somebody was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Place(Shown),
    /// That they have none.
    NoPlace,
    /// That the pass isn't good.
    PassRefused,
    /// That it is done.
    Done,
    /// No answer, or one that says nothing about what happened.
    Nothing,
}

/// One call of somebody, who makes one at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) user: User,
    pub(crate) call: Call,
    pub(crate) sent_at: Millis,
    pub(crate) told: Told,
    pub(crate) told_at: Millis,
}

/// The server died.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) at: Millis,
    /// What was acknowledged right before may be lost; tickets bring it back.
    pub(crate) loses: bool,
}

/// All that happened, in the order in which it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    records: Vec<Record>,
    kills: Vec<Kill>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// A place was acknowledged and isn't there, or doesn't come back.
    Lost { user: User, number: u32 },
    /// Somebody has another number than before, and hasn't ended that one.
    Moved { user: User, was: u32, is: u32 },
    /// Two people have one number.
    NumberTwice { number: u32 },
    /// Who came later has the lower number.
    NumberFell { number: u32, below: u32 },
    /// Somebody is farther back than before.
    PositionGrew { number: u32, was: u32, is: u32 },
    /// A place that was inside waits again, or one that ended is there again.
    WentBack { number: u32 },
    /// One place was given two passes.
    AdmittedTwice { number: u32 },
    /// A place ended that nobody gave up, or before its time.
    PutOut { number: u32 },
    /// A pass didn't open the door.
    PassRefused { number: u32 },
    /// `by` entered before `number`, who had been there first.
    Overtaken { number: u32, by: u32 },
    /// More were inside than the cap.
    OverCap { inside: usize, at: Millis },
    /// More entered than the window allows.
    TooFast { entered: usize, from: Millis },
    /// Somebody waits when nobody else does.
    NeverAdmitted { user: User, number: u32 },
    /// The server has counted others than those who were told that they entered.
    WrongTotal { told: u64, least: u64, most: u64 },
}

type Findings = BTreeSet<Finding>;

impl History {
    pub(crate) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(crate) fn killed(&mut self, kill: Kill) {
        self.kills.push(kill);
    }

    /// How many are known to have entered.
    pub(crate) fn admitted(&self, rules: Rules) -> usize {
        let replay = self.replay(rules);
        let entered = |place: &&Place| place.granted_at(rules).is_some();
        replay.places.values().filter(entered).count()
    }

    /// How many places were lost with the memory of the server, and asked for by
    /// their tickets.
    pub(crate) fn lost(&self, rules: Rules) -> usize {
        let replay = self.replay(rules);
        replay.places.values().map(|place| place.lost.len()).sum()
    }

    /// Every promise that was broken so far.
    pub(crate) fn check(&self, rules: Rules) -> Findings {
        let mut replay = self.replay(rules);
        let places: Vec<&Place> = replay.places.values().collect();
        replay.findings.extend(overtaken(&places, rules));
        replay.findings.extend(over_cap(&places, rules));
        replay.findings.extend(too_fast(&places, rules));
        replay.findings
    }

    /// The same once nobody waits or is inside any more; `total` is how many the
    /// server says have ever entered.
    pub(crate) fn check_end(&self, rules: Rules, total: u64) -> Findings {
        let mut findings = self.check(rules);
        let replay = self.replay(rules);
        for place in replay.places.values() {
            if !place.ended && place.expires_at.is_none() {
                let (user, number) = (place.user, place.number);
                findings.insert(Finding::NeverAdmitted { user, number });
            }
        }
        let count = |is: &dyn Fn(&Place) -> bool| {
            replay.places.values().filter(|place| is(place)).count() as u64
        };
        let least = count(&|place| place.expires_at.is_some() || place.expired);
        // Who gave up and had no answer may have been let in just then.
        let most = count(&|place| place.expires_at.is_some() || place.ended);
        if !(least..=most).contains(&total) {
            let told = total;
            findings.insert(Finding::WrongTotal { told, least, most });
        }
        findings
    }

    fn replay(&self, rules: Rules) -> Replay<'_> {
        let mut replay = Replay {
            rules,
            kills: &self.kills,
            places: BTreeMap::new(),
            latest: BTreeMap::new(),
            findings: Findings::new(),
        };
        for record in &self.records {
            replay.take(record);
        }
        replay
    }
}

/// What follows from the records so far.
struct Replay<'a> {
    rules: Rules,
    kills: &'a [Kill],
    /// By number.
    places: BTreeMap<u32, Place>,
    /// The number that each had last.
    latest: BTreeMap<User, u32>,
    findings: Findings,
}

impl Replay<'_> {
    fn take(&mut self, record: &Record) {
        let latest = self.latest.get(&record.user);
        let place = latest.and_then(|number| self.places.get_mut(number));
        if let Some(place) = place
            && matches!(record.call, Call::Leave | Call::Buy)
        {
            place.given_up_at.get_or_insert(record.sent_at);
        }
        match record.told {
            Told::Place(shown) => self.shown(record, shown),
            Told::NoPlace => self.missing(record),
            Told::PassRefused => self.refused(record),
            Told::Done => self.done(record),
            Told::Nothing => {}
        }
    }

    fn latest(&mut self, user: User) -> Option<&mut Place> {
        self.places.get_mut(self.latest.get(&user)?)
    }

    fn shown(&mut self, record: &Record, shown: Shown) {
        let (user, number) = (record.user, shown.number);
        let rules = self.rules;
        let Some(latest) = self.latest(user) else {
            return self.first_shown(record, shown);
        };
        if latest.number == number {
            let findings = latest.update(record, shown.state, rules);
            self.findings.extend(findings);
            return;
        }
        let (was, ended) = (latest.number, latest.ended);
        let own_of_before = self.places.get(&number).is_some_and(|it| it.user == user);
        match (ended, own_of_before) {
            (true, false) => self.first_shown(record, shown),
            // Of the last one nothing is known: that is all there is to show.
            (false, true) => self.missing(record),
            (true, true) | (false, false) => {
                let is = number;
                self.findings.insert(Finding::Moved { user, was, is });
            }
        }
    }

    fn first_shown(&mut self, record: &Record, shown: Shown) {
        let number = shown.number;
        if self.places.contains_key(&number) {
            self.findings.insert(Finding::NumberTwice { number });
            return;
        }
        let before = |place: &&Place| place.first_told_at < record.sent_at;
        let highest = self.places.values().filter(before).map(|it| it.number);
        if let Some(below) = highest.max().filter(|below| *below > number)
            && shown.is_new
        {
            self.findings.insert(Finding::NumberFell { number, below });
        }
        let mut place = Place::new(record.user, number, record.told_at);
        let findings = place.update(record, shown.state, self.rules);
        self.findings.extend(findings);
        self.places.insert(number, place);
        self.latest.insert(record.user, number);
    }

    /// The last place isn't there.
    fn missing(&mut self, record: &Record) {
        let kills = self.kills;
        let Some(place) = self.latest(record.user) else {
            return;
        };
        let may_be_lost = record.call != Call::Restore && !place.ended;
        let lost = place.may_be_lost_in(kills, record.told_at);
        match lost.filter(|_| may_be_lost) {
            Some(kill) => place.lose(kill.at),
            None => {
                let (user, number) = (place.user, place.number);
                self.findings.insert(Finding::Lost { user, number });
            }
        }
    }

    fn refused(&mut self, record: &Record) {
        let Some(place) = self.latest(record.user) else {
            return;
        };
        let is_good = place
            .expires_at
            .is_some_and(|at| record.told_at + SKEW < at);
        if is_good && place.given_up_at.is_none() {
            let number = place.number;
            self.findings.insert(Finding::PassRefused { number });
        }
    }

    fn done(&mut self, record: &Record) {
        if record.call == Call::Leave
            && let Some(place) = self.latest(record.user)
        {
            place.ended = true;
        }
    }
}

fn overtaken(places: &[&Place], rules: Rules) -> Findings {
    let mut findings = Findings::new();
    for (index, place) in places.iter().enumerate() {
        let Some(waited_until) = place.waited_until(rules) else {
            continue;
        };
        // They are in the order of their numbers.
        for later in places.iter().skip(index + 1) {
            let Some(entered) = later.granted_at(rules) else {
                continue;
            };
            if entered < waited_until && !place.was_lost_at(entered) {
                let (number, by) = (place.number, later.number);
                findings.insert(Finding::Overtaken { number, by });
            }
        }
    }
    findings
}

fn over_cap(places: &[&Place], rules: Rules) -> Findings {
    // Who goes at the moment at which another comes, goes first.
    let mut moves: Vec<(Millis, bool)> = Vec::new();
    let stays = places.iter().filter_map(|place| place.inside(rules));
    for (from, to) in stays.filter(|(from, to)| from < to) {
        moves.extend([(from, true), (to, false)]);
    }
    moves.sort_unstable();
    let mut inside = 0_usize;
    let mut findings = Findings::new();
    for (at, enters) in moves {
        inside = if enters { inside + 1 } else { inside - 1 };
        if inside > rules.cap {
            findings.insert(Finding::OverCap { inside, at });
        }
    }
    findings
}

fn too_fast(places: &[&Place], rules: Rules) -> Findings {
    let mut grants: Vec<Millis> = places
        .iter()
        .filter_map(|it| it.granted_at(rules))
        .collect();
    grants.sort_unstable();
    let mut findings = Findings::new();
    for (index, from) in grants.iter().enumerate() {
        let within = grants[index..]
            .iter()
            .take_while(|at| **at < from + rules.every);
        let entered = within.count();
        if entered > rules.count {
            findings.insert(Finding::TooFast {
                entered,
                from: *from,
            });
        }
    }
    findings
}
