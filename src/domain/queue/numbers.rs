//! Whose a number is, for those that admission hasn't passed.

use std::collections::VecDeque;

use super::line::TicketNumber;

const CHUNK: u32 = 1_024;
const NOBODY: u32 = u32::MAX;

/// The slot of each number, in chunks: made when needed, dropped when passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    chunks: VecDeque<Option<Box<[u32]>>>,
    /// The chunk that `chunks` begins with.
    first: u32,
}

impl Numbers {
    fn chunk_of(&self, number: TicketNumber) -> Option<usize> {
        let at = (number.0 / CHUNK).checked_sub(self.first)?;
        Some(at as usize)
    }

    pub(super) fn get(&self, number: TicketNumber) -> Option<u32> {
        let chunk = self.chunks.get(self.chunk_of(number)?)?.as_ref()?;
        let slot = chunk.get((number.0 % CHUNK) as usize).copied()?;
        (slot != NOBODY).then_some(slot)
    }

    pub(super) fn set(&mut self, number: TicketNumber, slot: Option<u32>) {
        if self.chunk_of(number).is_none() {
            if slot.is_none() {
                return;
            }
            // Somebody claims a number from before: the index reaches back.
            while self.first > number.0 / CHUNK {
                self.chunks.push_front(None);
                self.first -= 1;
            }
        }
        let Some(at) = self.chunk_of(number) else {
            return;
        };
        if slot.is_none() && self.chunks.get(at).is_none_or(Option::is_none) {
            return;
        }
        if self.chunks.len() <= at {
            self.chunks.resize_with(at + 1, || None);
        }
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        let chunk = chunk.get_or_insert_with(|| vec![NOBODY; CHUNK as usize].into());
        if let Some(entry) = chunk.get_mut((number.0 % CHUNK) as usize) {
            *entry = slot.unwrap_or(NOBODY);
        }
    }

    /// The first number from `from` on that somebody has.
    pub(super) fn next_from(&self, from: TicketNumber) -> Option<(TicketNumber, u32)> {
        let start = from.max(TicketNumber(self.first.saturating_mul(CHUNK)));
        let mut within = (start.0 % CHUNK) as usize;
        for at in self.chunk_of(start)?..self.chunks.len() {
            let chunk = self.chunks.get(at).and_then(Option::as_ref);
            let found = chunk.and_then(|chunk| {
                let slots = chunk.iter().enumerate().skip(within);
                slots
                    .map(|(at, slot)| (at, *slot))
                    .find(|(_, slot)| *slot != NOBODY)
            });
            if let Some((offset, slot)) = found {
                // Below NUMBER_MAX, as it was when it was set.
                let number = (self.first + at as u32) * CHUNK + offset as u32;
                return Some((TicketNumber(number), slot));
            }
            within = 0;
        }
        None
    }

    pub(super) fn trim(&mut self, upto: TicketNumber) {
        while self.first < upto.0 / CHUNK && self.chunks.pop_front().is_some() {
            self.first += 1;
        }
    }
}
