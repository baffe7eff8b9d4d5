//! What an account's e-mail, name and password may be.

use crate::http::error::Problem;

/// The longest e-mail in characters: what fits into an SMTP path (RFC 5321
/// §4.5.3.1.3).
const EMAIL_CHARS_MAX: usize = 254;

/// The longest part before the `@` in characters (RFC 5321 §4.5.3.1.1).
const EMAIL_LOCAL_CHARS_MAX: usize = 64;

/// The longest name in characters.
const NAME_CHARS_MAX: usize = 100;

/// The shortest password in characters (NIST SP 800-63B §5.1.1.2).
const PASSWORD_CHARS_MIN: usize = 8;

/// The longest password in characters, so that hashing it costs what hashing
/// any other does.
const PASSWORD_CHARS_MAX: usize = 256;

/// An e-mail without surrounding spaces, in lower case.
///
/// Only its shape is checked: whether it is one is known once a message
/// arrives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Email(String);

/// How an account is shown to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PersonName(String);

/// A password that may be set. Not shown by `Debug`.
#[derive(Clone)]
pub(crate) struct NewPassword(String);

impl Email {
    /// How a text is compared with stored e-mails, whether it is one or not.
    pub(crate) fn normalise(text: &str) -> String {
        text.trim().to_lowercase()
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let email = Self::normalise(text);
        if email.chars().count() > EMAIL_CHARS_MAX {
            return Err("an e-mail may have at most 254 characters");
        }
        let Some((local, domain)) = email.rsplit_once('@') else {
            return Err("not an e-mail: there is no @");
        };
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '@';
        let local_fits = (1..=EMAIL_LOCAL_CHARS_MAX).contains(&local.chars().count());
        let labels_fit = domain.split('.').all(|label| !label.is_empty());
        if local_fits && labels_fit && local.chars().chain(domain.chars()).all(plain) {
            Ok(Self(email))
        } else {
            Err("not an e-mail, e.g. name@example.com")
        }
    }

    pub(crate) fn into_inner(self) -> String {
        self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PersonName {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let name = text.trim();
        if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
            Err("a name has 1 to 100 characters")
        } else if name.chars().any(char::is_control) {
            Err("a name has no control characters")
        } else {
            Ok(Self(name.to_owned()))
        }
    }

    pub(crate) fn into_inner(self) -> String {
        self.0
    }
}

impl NewPassword {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: String) -> Result<Self, &'static str> {
        if (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&text.chars().count()) {
            Ok(Self(text))
        } else {
            Err("a password has 8 to 256 characters")
        }
    }

    pub(crate) fn into_inner(self) -> String {
        self.0
    }
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewPassword")
    }
}

/// The fields of a new account, or all that is wrong with them.
///
/// # Errors
/// 422 `invalid-request`.
pub(crate) fn new_account(
    email: &str,
    password: String,
    name: &str,
) -> Result<(Email, NewPassword, PersonName), Problem> {
    match (
        Email::parse(email),
        NewPassword::parse(password),
        PersonName::parse(name),
    ) {
        (Ok(email), Ok(password), Ok(name)) => Ok((email, password, name)),
        (email, password, name) => {
            let errors = [
                ("email", email.err()),
                ("password", password.err()),
                ("name", name.err()),
            ];
            let wrong = errors
                .into_iter()
                .filter_map(|(field, error)| Some((field, error?)));
            Err(Problem::invalid_fields(
                wrong.map(|(field, error)| (field.to_owned(), error.to_owned())),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_compared_without_spaces_and_case() {
        assert_eq!(
            Email::parse(" Ann@Example.COM ").unwrap().as_str(),
            "ann@example.com"
        );
        assert!(Email::parse("관객@예시.한국").is_ok());
        assert!(Email::parse("admin@localhost").is_ok());
    }

    #[test]
    fn what_has_not_the_shape_of_an_email_is_refused() {
        let long = format!("{}@{}", "a".repeat(64), "b".repeat(190));
        let long_local = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "ann",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b..c",
            "a@.c",
            "a@c.",
            "a\n@c",
            &long,
            &long_local,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_and_passwords_are_bounded_in_characters_and_not_in_bytes() {
        assert!(PersonName::parse(&"관".repeat(100)).is_ok());
        assert!(NewPassword::parse("관".repeat(256)).is_ok());
        for name in ["", "  ", &"a".repeat(101), "a\u{7}b", "a\0b"] {
            assert!(PersonName::parse(name).is_err(), "{name:?}");
        }
        for password in ["", "1234567", &"a".repeat(257)] {
            assert!(
                NewPassword::parse(password.to_owned()).is_err(),
                "{password:?}"
            );
        }
    }

    #[test]
    fn every_wrong_field_of_a_new_account_is_named() {
        let problem = new_account("x", "short".into(), "").unwrap_err();
        let errors = problem.member("errors").unwrap();
        let fields: Vec<_> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, ["email", "password", "name"]);
    }
}
