//! What events do to a queue.

use super::admit::Batch;
use super::draw::Ranks;
use super::join::is_live;
use super::line::TicketNumber;
use super::places::{Place, Seconds, Slot, Stand};
use super::policy::Terms;
use super::restore::Gap;
use super::standing::EtaSample;
use super::{Drawn, End, Event, News, Queue};
use crate::domain::ids::{QueueTicketId, Seq, UserId};
use crate::domain::time::Timestamp;

/// How many ranges of lost numbers are remembered: one for each crash in which
/// numbers were lost. Of more than that the oldest are given up.
const GAPS_MAX: usize = 1_024;

/// How many forecasts are compared with what came, between two looks at them.
const SAMPLES_MAX: usize = 256;

impl Queue {
    pub(super) fn apply_event(&mut self, seq: Seq, event: &Event) {
        match event {
            Event::Reserved { upto } => self.apply_reserved(seq, *upto),
            Event::Joined {
                user,
                ticket,
                number,
                at,
            } => self.apply_joined(*user, *ticket, *number, *at),
            Event::Ended {
                user,
                ticket,
                end,
                at,
                ..
            } => self.apply_ended(seq, *user, *ticket, *end, *at),
            Event::Admitted {
                late,
                upto,
                metered,
                terms,
            } => self.apply_admitted(seq, late, *upto, (*metered, *terms)),
            Event::Opened { at, expires_at } => self.apply_opened(seq, *at, *expires_at),
            Event::Extended {
                user,
                ticket,
                expires_at,
            } => self.apply_extended(seq, *user, *ticket, *expires_at),
            Event::Paused(paused) => {
                self.paused = *paused;
                self.news.all = true;
            }
            Event::Drained(draining) => self.draining = *draining,
            Event::SeedChosen(seed) => {
                self.lottery.seed.get_or_insert(*seed);
                self.lottery.choosing = Some(seq);
            }
            Event::Drawn {
                at,
                first,
                entrants,
                entrants_hash,
            } => {
                self.lottery.drawing = Some(seq);
                self.apply_drawn(Drawn {
                    at: *at,
                    first: *first,
                    entrants: *entrants,
                    entrants_hash: *entrants_hash,
                });
            }
            Event::Seen { user, at } => {
                let slot = self.places.of_user(*user).map(|(slot, _)| slot);
                if let Some(slot) = slot {
                    self.places.seen(slot, *at);
                }
            }
            Event::Turned { phase, at } => {
                if self.phase.is_none() {
                    self.listening_since = *at;
                }
                self.phase = Some(*phase);
                self.news.all = true;
                self.expect_all_signs();
            }
            Event::Sifted { bucket, looked_at } => self.sift(*bucket, *looked_at),
            Event::SeatsTold(seats) => self.seats = Some(*seats),
        }
    }

    fn apply_reserved(&mut self, seq: Seq, upto: TicketNumber) {
        self.block = self.next_block();
        self.reserved_upto = self.reserved_upto.max(upto);
        self.reserving.push_back((seq, upto));
    }

    fn apply_joined(
        &mut self,
        user: UserId,
        ticket: QueueTicketId,
        number: Option<TicketNumber>,
        at: Timestamp,
    ) {
        if let Some(number) = number {
            self.issue(number);
        }
        let predicted = number.and_then(|number| self.predict(at, number));
        let stand = Stand::Waiting {
            seen: Seconds::of(at),
            predicted,
        };
        let place = Place::new((user, ticket), number, at, stand);
        if self.places.len() >= self.plan.places_max {
            self.places.forget_oldest();
        }
        self.places.insert(place);
        if let Some(number) = number {
            self.expect_signs(number);
        }
    }

    /// `number` is somebody's: the next, one after a gap, or one of a gap.
    pub(super) fn issue(&mut self, number: TicketNumber) {
        if number < self.next {
            self.claimed.insert(number);
            if number <= self.cursor {
                self.late.insert(number);
            }
            return;
        }
        if number > self.next {
            self.add_gap(Gap {
                from: self.next,
                upto: TicketNumber(number.0 - 1),
            });
        }
        self.next = number.next();
        self.line.issue(number);
    }

    pub(super) fn add_gap(&mut self, gap: Gap) {
        if self.gaps.len() >= GAPS_MAX {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
    }

    fn apply_ended(
        &mut self,
        seq: Seq,
        user: UserId,
        ticket: QueueTicketId,
        end: End,
        at: Timestamp,
    ) {
        let found = self.places.of_user(user);
        let Some((slot, place)) = found.filter(|(_, p)| p.ticket == ticket && is_live(p)) else {
            return;
        };
        let (stand, number) = (place.stand, place.number());
        let mut pass_until = at;
        match (stand, number) {
            (Stand::Active { expires_at, .. }, Some(number)) => {
                self.passes.remove(&(expires_at, slot.0));
                pass_until = expires_at;
                if end != End::Expired {
                    self.revoked.push(user, number, expires_at, at);
                }
            }
            (Stand::Waiting { .. }, Some(number)) => {
                self.late.remove(&number);
                self.departing.push_back((seq, number));
            }
            (Stand::Waiting { .. }, None) => self.places.set_entrant(slot, false),
            (Stand::Active { .. } | Stand::Admitted { .. } | Stand::Ended { .. }, _) => {}
        }
        self.places.stand(
            slot,
            Stand::Ended {
                end,
                at: Seconds::of(at),
                pass_until,
            },
        );
        match end {
            // What the clock ended, it ends again.
            End::Expired => self.expired += 1,
            End::Left | End::Purchased => {
                self.left += 1;
                self.ending.insert(user, seq);
            }
            End::Replaced => {}
        }
        self.tell(user);
    }

    fn apply_admitted(
        &mut self,
        seq: Seq,
        late: &[TicketNumber],
        upto: TicketNumber,
        (metered, terms): (u32, Terms),
    ) {
        let mut places = Vec::new();
        for number in late {
            self.late.remove(number);
            if let Some((slot, _)) = self.places.waiting_at(*number) {
                places.push((slot, *number));
                self.admit(slot);
            }
        }
        loop {
            let next = self.places.next_waiting(self.cursor.next());
            let next = next.and_then(|(slot, place)| Some((slot, place.number()?)));
            let Some((slot, number)) = next.filter(|(_, number)| *number <= upto) else {
                break;
            };
            places.push((slot, number));
            self.admit(slot);
            self.cursor = number;
        }
        self.cursor = self.cursor.max(upto);
        self.batch = Some(Batch {
            places,
            upto,
            metered,
            terms: Some(terms),
            deciding: Some(seq),
        });
    }

    fn admit(&mut self, slot: Slot) {
        let stand = self.places.get(slot).map(|place| place.stand);
        if let Some(Stand::Waiting { predicted, .. }) = stand {
            self.places.stand(slot, Stand::Admitted { predicted });
        }
    }

    fn apply_opened(&mut self, seq: Seq, at: Timestamp, expires_at: Timestamp) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        self.opened.clear();
        // The one before is in the database: this batch was decided after it, and
        // is there itself.
        self.opening = Some((seq, expires_at));
        for (slot, number) in batch.places {
            let place = self
                .places
                .get(slot)
                .filter(|place| place.number() == Some(number));
            let Some((user, joined_at, Stand::Admitted { predicted })) =
                place.map(|place| (place.user, place.joined_at, place.stand))
            else {
                continue;
            };
            let granted_at = Seconds::of(at);
            let stand = Stand::Active {
                granted_at,
                expires_at,
            };
            self.places.stand(slot, stand);
            self.passes.insert((expires_at, slot.0));
            self.opened.push(slot);
            self.tell(user);
            if let Some(predicted) = predicted.filter(|_| self.eta_samples.len() < SAMPLES_MAX) {
                self.eta_samples.push(EtaSample {
                    predicted_seconds: predicted.start().since(joined_at).0 as f64 / 1000.0,
                    actual_seconds: at.since(joined_at).0 as f64 / 1000.0,
                });
            }
        }
        let count = u32::try_from(self.opened.len()).unwrap_or(u32::MAX);
        if let Some(admit) = self.plan.policy.admit {
            self.window.push(admit, at, batch.metered);
        }
        self.rate.push(at, count);
        self.admitted_total += u64::from(count);
        self.line.advance(batch.upto);
        let first_late = self.late.first().copied();
        self.places
            .passed(first_late.map_or(batch.upto, |late| late.min(batch.upto)));
    }

    fn apply_extended(
        &mut self,
        seq: Seq,
        user: UserId,
        ticket: QueueTicketId,
        expires_at: Timestamp,
    ) {
        let Some((slot, place)) = self.places.of_user(user) else {
            return;
        };
        let Stand::Active {
            granted_at,
            expires_at: before,
        } = place.stand
        else {
            return;
        };
        if place.ticket != ticket || expires_at <= before {
            return;
        }
        let shown = self
            .renewing
            .get(&slot.0)
            .map_or(before, |(_, shown)| *shown);
        self.renewing.insert(slot.0, (seq, shown));
        self.passes.remove(&(before, slot.0));
        self.passes.insert((expires_at, slot.0));
        let stand = Stand::Active {
            granted_at,
            expires_at,
        };
        self.places.stand(slot, stand);
    }

    /// Numbers those who wait for the draw by their ranks.
    pub(super) fn apply_drawn(&mut self, drawn: Drawn) {
        let Some(seed) = self.lottery.seed else {
            return;
        };
        let ranks = Ranks::new(&seed);
        let mut ranked: Vec<_> = self
            .entrants()
            .map(|(slot, ticket)| (ranks.of(ticket), ticket, slot))
            .collect();
        ranked.sort_unstable_by_key(|(rank, ticket, _)| (*rank, *ticket));
        let mut number = drawn.first;
        for (_, _, slot) in &ranked {
            self.issue(number);
            self.places.number(*slot, number);
            self.expect_signs(number);
            number = number.next();
        }
        self.lottery.drawn = Some(drawn);
        self.lottery.entrants = ranked.into_iter().map(|(_, ticket, _)| ticket).collect();
        self.news = News {
            users: Vec::new(),
            all: true,
        };
    }

    pub(super) fn settle_all(&mut self, upto: Seq) {
        while let Some((_, number)) = self.reserving.pop_front_if(|(seq, _)| *seq <= upto) {
            self.reserved_durably = self.reserved_durably.max(number);
        }
        while let Some((_, number)) = self.departing.pop_front_if(|(seq, _)| *seq <= upto) {
            self.line.depart(number);
        }
        let is_durable = |seq: &mut Seq| *seq <= upto;
        if let Some(batch) = &mut self.batch {
            let _ = batch.deciding.take_if(is_durable);
        }
        let _ = self.opening.take_if(|(seq, _)| *seq <= upto);
        self.ending.retain(|_, seq| *seq > upto);
        let _ = self.lottery.choosing.take_if(is_durable);
        let _ = self.lottery.drawing.take_if(is_durable);
        if self.renewing.is_empty() {
            return;
        }
        let mut renewed = Vec::new();
        self.renewing.retain(|slot, (seq, _)| {
            let is_durable = *seq <= upto;
            if is_durable {
                renewed.push(*slot);
            }
            !is_durable
        });
        for slot in renewed {
            if let Some(user) = self.places.get(Slot(slot)).map(|place| place.user) {
                self.tell(user);
            }
        }
    }
}
