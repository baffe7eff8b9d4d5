//! Accounts that nobody signs up for: the admin of a new server, those of the
//! demo, and thousands for a load test.

use std::collections::HashMap;

use super::fields::{Email, NewPassword, PersonName};
use super::service::{AccountError, Accounts};
use crate::domain::ids::UserId;
use crate::domain::roles::{Role, Roles};

/// What [`Accounts::ensure_admin`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminEnsured {
    /// There was no account; it has the password now.
    Created(UserId),
    /// There was an account that was no admin; it keeps its password.
    Promoted(UserId),
    /// Nothing had to be done.
    AlreadyAdmin(UserId),
}

impl Accounts {
    /// Makes an account from texts, e.g. those of the demo.
    ///
    /// # Errors
    /// [`AccountError::Invalid`], [`AccountError::EmailTaken`] among others.
    pub async fn create_account(
        &self,
        email: &str,
        password: &str,
        name: &str,
        roles: Roles,
    ) -> Result<UserId, AccountError> {
        let email = Email::parse(email).map_err(AccountError::Invalid)?;
        let password = NewPassword::parse(password.to_owned()).map_err(AccountError::Invalid)?;
        let name = PersonName::parse(name).map_err(AccountError::Invalid)?;
        Ok(self.register(email, password, name, roles).await?.id)
    }

    /// Makes many accounts that share one password, in one transaction and
    /// with one hash, and returns their ids in the order of `people` (e-mail,
    /// name). An e-mail that has an account already keeps it as it is.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] among others; none was made then.
    pub async fn create_bulk(
        &self,
        people: &[(String, String)],
        password: &str,
        roles: Roles,
    ) -> Result<Vec<UserId>, AccountError> {
        let password = NewPassword::parse(password.to_owned()).map_err(AccountError::Invalid)?;
        let password_hash = self.passwords.hash(password.into_inner()).await?;
        let mut users = Vec::with_capacity(people.len());
        for (email, name) in people {
            let email = Email::parse(email).map_err(AccountError::Invalid)?;
            let name = PersonName::parse(name).map_err(AccountError::Invalid)?;
            users.push(self.new_user(email, name, password_hash.clone(), roles));
        }
        let emails: Vec<String> = users.iter().map(|user| user.email.clone()).collect();
        self.store.insert_users(users).await?;
        let ids: HashMap<String, UserId> = self
            .store
            .user_ids_by_email(&emails)
            .await?
            .into_iter()
            .collect();
        // Missing only if somebody was deleted in between.
        emails
            .iter()
            .map(|email| ids.get(email).copied().ok_or(AccountError::UnknownUser))
            .collect()
    }

    /// Makes the account with this e-mail an admin; makes the account, if there
    /// is none, with this password.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] among others.
    pub async fn ensure_admin(
        &self,
        email: &str,
        password: &str,
    ) -> Result<AdminEnsured, AccountError> {
        let email = Email::parse(email).map_err(AccountError::Invalid)?;
        let Some(user) = self.store.user_by_email(email.as_str()).await? else {
            let roles = Roles::CUSTOMER.with(Role::Admin);
            let id = self
                .create_account(email.as_str(), password, "Admin", roles)
                .await?;
            return Ok(AdminEnsured::Created(id));
        };
        if user.roles.has(Role::Admin) {
            return Ok(AdminEnsured::AlreadyAdmin(user.id));
        }
        self.set_roles(user.id, user.roles.with(Role::Admin))
            .await?;
        Ok(AdminEnsured::Promoted(user.id))
    }
}
