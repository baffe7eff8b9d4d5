//! How a waiting room admits: the policy of a performance's queue, its presets
//! and the ranges of its members.

use serde::{Deserialize, Serialize};

/// The longest time in a policy, in seconds (the HTTP contract).
pub const POLICY_SECONDS_MAX: u32 = 86_400;

/// A sliding window: never more than `count` in any `every_seconds`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admit {
    /// How many; at least 1.
    pub count: u32,
    /// Within how many seconds; 1 to [`POLICY_SECONDS_MAX`].
    pub every_seconds: u32,
}

/// Who gets which number when the sale opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// In the order of joining.
    #[default]
    Fifo,
    /// Whoever joined before is drawn.
    Lottery,
}

/// The policy of a queue, complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueuePolicy {
    /// The first so many numbers enter at once, outside `admit`, within
    /// `max_active`.
    pub free_admission: u32,
    /// How fast others enter; `None`: as fast as `max_active` allows.
    pub admit: Option<Admit>,
    /// How many may be inside at once; `None`: no cap.
    pub max_active: Option<u32>,
    /// How long a pass lives.
    pub active_ttl_seconds: u32,
    /// Joins are refused when more wait than this times the seats left.
    pub max_waiting_per_seat: Option<u32>,
    /// A durable hold renews the pass to at least so long from now.
    pub extend_on_hold_seconds: u32,
    /// Whether a purchase ends the pass.
    pub leave_on_purchase: bool,
    /// Who shows no sign of life for so long is dropped from the line.
    pub waiting_ttl_seconds: Option<u32>,
    /// See [`Opening`].
    pub opening: Opening,
}

impl QueuePolicy {
    /// What a policy has where a request names neither a preset nor the
    /// member: nobody enters outside `admit` and `max_active`; the rest as in
    /// the example of the HTTP contract.
    pub const PLAIN: Self = Self {
        free_admission: 0,
        admit: None,
        max_active: None,
        active_ttl_seconds: 600,
        max_waiting_per_seat: None,
        extend_on_hold_seconds: 300,
        leave_on_purchase: true,
        waiting_ttl_seconds: None,
        opening: Opening::Fifo,
    };
}

/// What of a policy an admission is decided by; journaled with it, so that the
/// audit knows what was allowed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// See [`QueuePolicy::free_admission`].
    pub free_admission: u32,
    /// See [`QueuePolicy::admit`].
    pub admit: Option<Admit>,
    /// See [`QueuePolicy::max_active`].
    pub max_active: Option<u32>,
}

impl QueuePolicy {
    /// What an admission is decided by.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            free_admission: self.free_admission,
            admit: self.admit,
            max_active: self.max_active,
        }
    }
}

/// A policy with a name. The values are those of the HTTP contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// So many each interval, however many are inside.
    AmusementPark,
    /// One leaves, one enters.
    BankCounter,
    /// At most 200 inside.
    #[serde(rename = "active-200")]
    Active200,
    /// A stream of 30 a second.
    #[serde(rename = "window-150")]
    Window150,
    /// At most 50 inside.
    #[serde(rename = "active-50")]
    Active50,
}

impl Preset {
    /// The policy that it stands for.
    #[must_use]
    pub fn policy(self) -> QueuePolicy {
        let admit = |count, every_seconds| {
            Some(Admit {
                count,
                every_seconds,
            })
        };
        let plain = QueuePolicy::PLAIN;
        match self {
            Self::AmusementPark => QueuePolicy {
                free_admission: 1000,
                admit: admit(3000, 10),
                ..plain
            },
            Self::BankCounter => QueuePolicy {
                max_active: Some(1000),
                active_ttl_seconds: 1800,
                extend_on_hold_seconds: 1800,
                max_waiting_per_seat: Some(2),
                ..plain
            },
            Self::Active200 => QueuePolicy {
                free_admission: 200,
                admit: admit(200, 10),
                max_active: Some(200),
                ..plain
            },
            Self::Window150 => QueuePolicy {
                free_admission: 150,
                admit: admit(150, 5),
                active_ttl_seconds: 300,
                ..plain
            },
            Self::Active50 => QueuePolicy {
                admit: admit(50, 10),
                max_active: Some(50),
                active_ttl_seconds: 900,
                ..plain
            },
        }
    }
}

/// A policy as it is asked for: a preset, members that override it, or members
/// alone. A member that is `null` is not the same as one that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyRequest {
    /// Where the members that are not given come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// See [`QueuePolicy`]; as all that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_admission: Option<u32>,
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub admit: Option<Option<Admit>>,
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_active: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_ttl_seconds: Option<u32>,
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_waiting_per_seat: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_on_hold_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave_on_purchase: Option<bool>,
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub waiting_ttl_seconds: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
}

/// Reads a member that may be `null`; called only where it is there.
fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// A member of a policy is out of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be from {min} to {max}")]
pub struct PolicyProblem {
    /// The member, as a path within the policy.
    pub field: &'static str,
    /// The least that is allowed.
    pub min: u32,
    /// The most that is allowed.
    pub max: u32,
}

impl PolicyRequest {
    /// The policy that is asked for.
    ///
    /// # Errors
    /// The first member that is out of the ranges of the HTTP contract.
    pub fn policy(&self) -> Result<QueuePolicy, PolicyProblem> {
        let base = self.preset.map_or(QueuePolicy::PLAIN, Preset::policy);
        let policy = QueuePolicy {
            free_admission: self.free_admission.unwrap_or(base.free_admission),
            admit: self.admit.unwrap_or(base.admit),
            max_active: self.max_active.unwrap_or(base.max_active),
            active_ttl_seconds: self.active_ttl_seconds.unwrap_or(base.active_ttl_seconds),
            max_waiting_per_seat: self
                .max_waiting_per_seat
                .unwrap_or(base.max_waiting_per_seat),
            extend_on_hold_seconds: self
                .extend_on_hold_seconds
                .unwrap_or(base.extend_on_hold_seconds),
            leave_on_purchase: self.leave_on_purchase.unwrap_or(base.leave_on_purchase),
            waiting_ttl_seconds: self.waiting_ttl_seconds.unwrap_or(base.waiting_ttl_seconds),
            opening: self.opening.unwrap_or(base.opening),
        };
        policy.check().map(|()| policy)
    }
}

impl QueuePolicy {
    fn check(&self) -> Result<(), PolicyProblem> {
        const SECONDS: u32 = POLICY_SECONDS_MAX;
        if let Some(admit) = self.admit {
            within("admit.count", admit.count, 1, u32::MAX)?;
            within("admit.every_seconds", admit.every_seconds, 1, SECONDS)?;
        }
        if let Some(max_active) = self.max_active {
            within("max_active", max_active, 1, u32::MAX)?;
        }
        within("active_ttl_seconds", self.active_ttl_seconds, 1, SECONDS)?;
        within(
            "extend_on_hold_seconds",
            self.extend_on_hold_seconds,
            0,
            SECONDS,
        )?;
        let waiting_ttl = self.waiting_ttl_seconds.unwrap_or(0);
        within("waiting_ttl_seconds", waiting_ttl, 0, SECONDS)
    }
}

fn within(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), PolicyProblem> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(PolicyProblem { field, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<QueuePolicy, PolicyProblem> {
        serde_json::from_str::<PolicyRequest>(json)
            .unwrap()
            .policy()
    }

    #[test]
    fn a_member_beside_a_preset_overrides_it_and_null_is_a_value() {
        let policy = asked(r#"{"preset": "active-200", "admit": null, "active_ttl_seconds": 5}"#);
        let expected = QueuePolicy {
            admit: None,
            active_ttl_seconds: 5,
            ..Preset::Active200.policy()
        };
        assert_eq!(policy, Ok(expected));
        assert_eq!(
            asked(r#"{"preset":"bank-counter"}"#),
            Ok(Preset::BankCounter.policy())
        );
    }

    #[test]
    fn counts_and_seconds_have_the_ranges_of_the_contract() {
        let field = |json| asked(json).unwrap_err().field;
        assert_eq!(
            field(r#"{"admit": {"count": 0, "every_seconds": 1}}"#),
            "admit.count"
        );
        assert_eq!(
            field(r#"{"admit": {"count": 1, "every_seconds": 0}}"#),
            "admit.every_seconds"
        );
        assert_eq!(field(r#"{"max_active": 0}"#), "max_active");
        assert_eq!(field(r#"{"active_ttl_seconds": 0}"#), "active_ttl_seconds");
        assert_eq!(
            field(r#"{"extend_on_hold_seconds": 86401}"#),
            "extend_on_hold_seconds"
        );
        assert!(asked(r#"{"free_admission": 0, "extend_on_hold_seconds": 0}"#).is_ok());
        assert!(serde_json::from_str::<PolicyRequest>(r#"{"speed": 1}"#).is_err());
    }

    #[test]
    fn a_stored_policy_reads_back() {
        let policy = Preset::Window150.policy();
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<QueuePolicy>(&text).unwrap(), policy);
    }
}
