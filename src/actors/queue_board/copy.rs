//! What a waiting room publishes, on its way to the nodes that have sockets of
//! it: changes since what a node has, or the whole.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KEPT_MAX, Life, QueueBoard, Source, Told, push_bounded};
use crate::domain::ids::UserId;
use crate::domain::queue::line::{Line, LineDelta, LineSnapshot};
use crate::domain::queue::{News, Pace, Summary};

/// More users with news than this are not sent by name.
const NEWS_MAX: usize = 65_536;

/// What a node has of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Followed {
    life: Life,
    version: u64,
    line_seq: u64,
}

/// What is told of a queue, to who has an older state of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToldCopy {
    life: Life,
    version: u64,
    summary: Summary,
    pace: Option<Pace>,
    line: LineCopy,
    /// Who stands otherwise than before; `None`: everybody may.
    news: Option<Vec<UserId>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum LineCopy {
    Changes(Vec<LineDelta>),
    Whole(LineSnapshot),
}

impl QueueBoard {
    /// What this node has, to ask the owner for what is newer.
    #[must_use]
    pub fn followed(&self) -> Option<Followed> {
        let told = self.told.borrow();
        told.as_ref().map(|told| Followed {
            life: told.life,
            version: told.version,
            line_seq: self.with_line(Line::seq),
        })
    }

    /// Whether something was told that who has `known` doesn't know.
    #[must_use]
    pub fn has_newer(told: &Told, known: Option<Followed>) -> bool {
        known.is_none_or(|known| (known.life, known.version) != (told.life, told.version))
    }

    /// What is told, for who has `known`; `None` until the queue is loaded.
    #[must_use]
    pub fn told_since(&self, known: Option<Followed>) -> Option<ToldCopy> {
        let told = self.told.borrow().clone()?;
        let known = known.filter(|k| k.life == told.life && k.version <= told.version);
        let changes = known.and_then(|known| changes_since(&told, known.line_seq));
        let line = match changes {
            Some(changes) => LineCopy::Changes(changes),
            None => LineCopy::Whole(self.with_line(Line::snapshot)),
        };
        Some(ToldCopy {
            life: told.life,
            version: told.version,
            summary: told.summary,
            pace: told.pace,
            line,
            news: known.and_then(|known| told.news_since(known.version)),
        })
    }

    /// Takes what the owner has told. `false` if it doesn't fit: then the whole
    /// is needed.
    pub fn follow(&self, copy: ToldCopy) -> bool {
        // Held to the end, so that it can't be loaded here meanwhile.
        let passes = self.passes.read();
        if passes.source == Source::Here {
            return true;
        }
        {
            let mut line = self.line.write();
            match copy.line {
                LineCopy::Whole(whole) => *line = whole.into(),
                LineCopy::Changes(changes) => {
                    let seq = line.seq();
                    let newer = changes.iter().filter(|change| change.seq > seq);
                    for change in newer {
                        if line.follow(change).is_err() {
                            return false;
                        }
                    }
                }
            }
        }
        let before = self.told.borrow().clone();
        let mut news = match before {
            Some(told) if told.life == copy.life => told.news.clone(),
            Some(_) | None => VecDeque::new(),
        };
        let users = copy.news;
        if users.as_ref().is_none_or(|users| !users.is_empty()) {
            let all = users.is_none();
            let users = users.unwrap_or_default();
            push_bounded(&mut news, (copy.version, Arc::new(News { users, all })));
        }
        self.told.send_replace(Some(Arc::new(Told {
            life: copy.life,
            version: copy.version,
            summary: copy.summary,
            pace: copy.pace,
            deltas: VecDeque::new(),
            news,
        })));
        true
    }
}

/// The changes of the line after `seq`, if they are all known.
fn changes_since(told: &Told, seq: u64) -> Option<Vec<LineDelta>> {
    let newer = told.deltas.iter().filter(|delta| delta.seq > seq);
    (seq + 1..)
        .zip(newer)
        .map(|(next, delta)| (delta.seq == next).then(|| LineDelta::clone(delta)))
        .collect()
}

impl Told {
    /// Who stands otherwise than in `version`; `None`: everybody may.
    #[must_use]
    pub fn news_since(&self, version: u64) -> Option<Vec<UserId>> {
        let oldest = self.news.front().map_or(u64::MAX, |(version, _)| *version);
        if self.news.len() >= KEPT_MAX && oldest > version {
            // Some may have been dropped.
            return None;
        }
        let mut users = Vec::new();
        for (_, news) in self.news.iter().filter(|(told, _)| *told > version) {
            if news.all || users.len() + news.users.len() > NEWS_MAX {
                return None;
            }
            users.extend_from_slice(&news.users);
        }
        Some(users)
    }
}
