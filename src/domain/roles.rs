//! What an account may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One role of an account. The names are part of the HTTP contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Buys.
    Customer,
    /// Checks tickets in.
    Staff,
    /// Administers what it created.
    Organizer,
    /// Administers everything.
    Admin,
}

impl Role {
    /// Every role, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Customer, Self::Staff, Self::Organizer, Self::Admin];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of roles. In JSON an array of names, without repetitions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(u8);

impl Roles {
    /// What a new account has.
    pub const CUSTOMER: Self = Self(Role::Customer.bit());

    /// Whether `role` is in the set.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// The set with `role` added.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// Whether there is no role in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles in it, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |&role| self.has(role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Role>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_a_set_in_json_an_array_of_names() {
        let roles: Roles = serde_json::from_str(r#"["admin", "customer", "admin"]"#).unwrap();
        assert!(roles.has(Role::Admin) && roles.has(Role::Customer) && !roles.has(Role::Staff));
        assert_eq!(
            serde_json::to_string(&roles).unwrap(),
            r#"["customer","admin"]"#
        );
        assert!(serde_json::from_str::<Roles>(r#"["root"]"#).is_err());
    }
}
