//! Who is where in the line: the number that was admitted last, and which of
//! those after it have gone. Every node keeps a copy, so that it can tell its
//! sockets their positions without asking the owner.

use serde::{Deserialize, Serialize};

/// The place of somebody in the order of a queue, from 1: lower ones enter
/// first. 0 is nobody's.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TicketNumber(pub u32);

impl TicketNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The highest number that is ever given out: bounds the memory of a line to
/// 17 MB.
pub const NUMBER_MAX: TicketNumber = TicketNumber(1 << 27);

/// So many numbers share a block: six words of bits. With its counts it fills a
/// cache line, so a position costs one miss and the counting of one word.
const BLOCK: u32 = 384;
const WORDS: usize = BLOCK as usize / 64;

/// So many blocks share a count of what is before them.
const ROW: usize = 64;

/// A bit for each number that has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(align(64))]
struct Block {
    /// How many bits are set before it in its row.
    before: u32,
    /// How many are set before each word of it; at most 320.
    before_word: [u16; WORDS],
    bits: [u64; WORDS],
}

const _: () = assert!(size_of::<Block>() == 64, "a block is a cache line");

impl Block {
    fn new(before: u32, bits: [u64; WORDS]) -> Self {
        let mut block = Self {
            before,
            bits,
            ..Self::default()
        };
        let mut counted = 0;
        for (before, word) in block.before_word.iter_mut().zip(bits) {
            *before = counted;
            // At most 64 each.
            counted += word.count_ones() as u16;
        }
        block
    }

    fn count(&self) -> u32 {
        self.count_upto(BLOCK - 1)
    }

    /// How many bits are set up to this one.
    fn count_upto(&self, bit: u32) -> u32 {
        let at = (bit / 64) as usize;
        match (self.before_word.get(at), self.bits.get(at)) {
            (Some(before), Some(word)) => {
                // Those above it are shifted out.
                u32::from(*before) + (word << (63 - bit % 64)).count_ones()
            }
            _ => 0,
        }
    }

    /// Sets a bit; `false` if it was set.
    fn set(&mut self, bit: u32) -> bool {
        let at = (bit / 64) as usize;
        let Some(word) = self.bits.get_mut(at) else {
            return false;
        };
        let mask = 1 << (bit % 64);
        if *word & mask != 0 {
            return false;
        }
        *word |= mask;
        let later = self.before_word.iter_mut().skip(at + 1);
        later.for_each(|before| *before += 1);
        true
    }
}

/// So many blocks may lie behind the last admitted number before they are
/// dropped; more than half of all must.
const DEAD_BLOCKS: usize = 64;

/// The positions of a queue at one moment.
///
/// A position is the number less the last one admitted and those that have
/// gone between them. Only what makes it smaller can happen, so it never grows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Line {
    seq: u64,
    admitted_up_to: TicketNumber,
    last: TicketNumber,
    /// The block of numbers that `blocks` begins with.
    first_block: usize,
    blocks: Vec<Block>,
    /// How many bits are set before each row of blocks.
    rows: Vec<u32>,
    /// How many bits are set at or below `admitted_up_to`.
    gone_before: u32,
}

/// What has changed in a line since version `seq` - 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineDelta {
    /// The version that it makes.
    pub seq: u64,
    /// The last number admitted.
    pub admitted_up_to: TicketNumber,
    /// The last number given out.
    pub last: TicketNumber,
    /// Who has gone.
    pub departed: Vec<TicketNumber>,
}

/// A whole line, to begin a copy with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineSnapshot {
    seq: u64,
    admitted_up_to: TicketNumber,
    last: TicketNumber,
    first_block: u32,
    blocks: Vec<[u64; WORDS]>,
}

/// A delta doesn't follow on the version of the copy: a snapshot is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the copy of the line is at version {have}, the change makes version {next}")]
pub struct Missed {
    /// The version of the copy.
    pub have: u64,
    /// The version of the delta.
    pub next: u64,
}

impl Line {
    /// A line in which numbers up to `last` were given out and all up to
    /// `admitted_up_to` have been admitted.
    #[must_use]
    pub fn new(admitted_up_to: TicketNumber, last: TicketNumber) -> Self {
        Self {
            admitted_up_to,
            last: last.max(admitted_up_to),
            first_block: block_of(admitted_up_to),
            ..Self::default()
        }
    }

    /// Its version.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The last number admitted.
    #[must_use]
    pub fn admitted_up_to(&self) -> TicketNumber {
        self.admitted_up_to
    }

    /// The last number given out.
    #[must_use]
    pub fn last(&self) -> TicketNumber {
        self.last
    }

    /// How many are before `number`, and it: 1 is next. A number that was
    /// passed is next, too.
    #[must_use]
    pub fn position(&self, number: TicketNumber) -> u32 {
        let ahead = number.0.saturating_sub(self.admitted_up_to.0);
        let gone = self.gone_upto(number).saturating_sub(self.gone_before);
        ahead.saturating_sub(gone).max(1)
    }

    /// How many are behind `number`.
    #[must_use]
    pub fn behind(&self, number: TicketNumber) -> u32 {
        let from = number.max(self.admitted_up_to);
        let behind = self.last.0.saturating_sub(from.0);
        let gone = self
            .gone_upto(self.last)
            .saturating_sub(self.gone_upto(from));
        behind.saturating_sub(gone)
    }

    /// Whether `number` has gone before it was admitted; `false` for those that
    /// were admitted or passed.
    #[must_use]
    pub fn has_gone(&self, number: TicketNumber) -> bool {
        if number <= self.admitted_up_to {
            return false;
        }
        let block = block_of(number).checked_sub(self.first_block);
        let word = block
            .and_then(|block| self.blocks.get(block))
            .and_then(|block| block.bits.get(word_of(number)));
        word.is_some_and(|word| word & bit_of(number) != 0)
    }

    /// Numbers up to `last` are given out.
    pub(super) fn issue(&mut self, last: TicketNumber) {
        self.last = self.last.max(last);
    }

    /// `number` has gone. `true` if that was new.
    pub(super) fn depart(&mut self, number: TicketNumber) -> bool {
        if number <= self.admitted_up_to || number > NUMBER_MAX {
            return false;
        }
        let Some(at) = block_of(number).checked_sub(self.first_block) else {
            return false;
        };
        while self.blocks.len() <= at {
            self.push_block([0; WORDS]);
        }
        let block = self.blocks.get_mut(at);
        if !block.is_some_and(|block| block.set(number.0 % BLOCK)) {
            return false;
        }
        let row = at / ROW;
        let rest_of_row = self.blocks.iter_mut().skip(at + 1).take(ROW - 1 - at % ROW);
        rest_of_row.for_each(|block| block.before += 1);
        self.rows
            .iter_mut()
            .skip(row + 1)
            .for_each(|before| *before += 1);
        true
    }

    /// All up to `upto` were admitted or passed.
    pub(super) fn advance(&mut self, upto: TicketNumber) {
        if upto <= self.admitted_up_to {
            return;
        }
        self.admitted_up_to = upto;
        self.last = self.last.max(upto);
        let dead = block_of(upto).saturating_sub(self.first_block);
        if dead > DEAD_BLOCKS && dead * 2 > self.blocks.len() {
            self.blocks.drain(..dead.min(self.blocks.len()));
            self.first_block += dead;
            self.recount();
        }
        self.gone_before = self.gone_upto(upto);
    }

    pub(super) fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// How many bits are set at or below `number`.
    fn gone_upto(&self, number: TicketNumber) -> u32 {
        let Some(at) = block_of(number).checked_sub(self.first_block) else {
            return 0;
        };
        match (self.blocks.get(at), self.rows.get(at / ROW)) {
            (Some(block), Some(row)) => row + block.before + block.count_upto(number.0 % BLOCK),
            _ => self.gone(),
        }
    }

    /// How many bits are set.
    fn gone(&self) -> u32 {
        match (self.blocks.last(), self.rows.last()) {
            (Some(block), Some(row)) => row + block.before + block.count(),
            _ => 0,
        }
    }

    fn push_block(&mut self, bits: [u64; WORDS]) {
        let gone = self.gone();
        if self.blocks.len().is_multiple_of(ROW) {
            self.rows.push(gone);
        }
        let row = self.rows.last().copied().unwrap_or(0);
        self.blocks.push(Block::new(gone - row, bits));
    }

    /// Counts anew.
    fn recount(&mut self) {
        self.rows.clear();
        for block in std::mem::take(&mut self.blocks) {
            self.push_block(block.bits);
        }
    }

    /// The whole of it.
    #[must_use]
    pub fn snapshot(&self) -> LineSnapshot {
        LineSnapshot {
            seq: self.seq,
            admitted_up_to: self.admitted_up_to,
            last: self.last,
            first_block: u32::try_from(self.first_block).unwrap_or(u32::MAX),
            blocks: self.blocks.iter().map(|block| block.bits).collect(),
        }
    }

    /// Follows the owner's line.
    ///
    /// # Errors
    /// [`Missed`] if the change isn't the next one; nothing changes then.
    pub fn follow(&mut self, delta: &LineDelta) -> Result<(), Missed> {
        if delta.seq != self.seq + 1 {
            return Err(Missed {
                have: self.seq,
                next: delta.seq,
            });
        }
        self.seq = delta.seq;
        self.issue(delta.last);
        for number in &delta.departed {
            self.depart(*number);
        }
        self.advance(delta.admitted_up_to);
        Ok(())
    }
}

impl From<LineSnapshot> for Line {
    fn from(snapshot: LineSnapshot) -> Self {
        let mut line = Self {
            seq: snapshot.seq,
            admitted_up_to: snapshot.admitted_up_to,
            last: snapshot.last,
            first_block: snapshot.first_block as usize,
            ..Self::default()
        };
        for bits in snapshot.blocks {
            line.push_block(bits);
        }
        line.gone_before = line.gone_upto(line.admitted_up_to);
        line
    }
}

fn block_of(number: TicketNumber) -> usize {
    (number.0 / BLOCK) as usize
}

fn word_of(number: TicketNumber) -> usize {
    (number.0 % BLOCK / 64) as usize
}

fn bit_of(number: TicketNumber) -> u64 {
    1 << (number.0 % 64)
}

/// More changes than this between two ticks are not listed: followers take a
/// snapshot.
const LISTED_MAX: usize = 65_536;

/// The owner's line: knows what its followers haven't been told.
#[derive(Clone, Debug, Default)]
pub struct LeadingLine {
    line: Line,
    departed: Vec<TicketNumber>,
    changed: bool,
    /// Too much has changed to be listed.
    skipped: bool,
}

impl LeadingLine {
    /// Leads `line`.
    #[must_use]
    pub fn new(line: Line) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    pub(super) fn number_from(&mut self, seq: u64) {
        self.line.set_seq(self.line.seq().max(seq));
    }

    pub(super) fn issue(&mut self, last: TicketNumber) {
        self.line.issue(last);
        self.changed = true;
    }

    pub(super) fn depart(&mut self, number: TicketNumber) {
        if !self.line.depart(number) {
            return;
        }
        self.changed = true;
        if self.departed.len() < LISTED_MAX {
            self.departed.push(number);
        } else {
            self.skipped = true;
        }
    }

    pub(super) fn advance(&mut self, upto: TicketNumber) {
        self.line.advance(upto);
        self.changed = true;
    }

    /// What has changed since this was last called; `None` if nothing has. Too
    /// much of it skips a version, so that followers ask for a snapshot.
    pub fn take_delta(&mut self) -> Option<LineDelta> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let skipped = u64::from(std::mem::take(&mut self.skipped));
        self.line.set_seq(self.line.seq() + 1 + skipped);
        let mut departed = std::mem::take(&mut self.departed);
        if skipped > 0 {
            departed.clear();
        }
        Some(LineDelta {
            seq: self.line.seq(),
            admitted_up_to: self.line.admitted_up_to(),
            last: self.line.last(),
            departed,
        })
    }
}
