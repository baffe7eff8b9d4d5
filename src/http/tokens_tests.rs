use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::domain::roles::Role;

const NOW: Timestamp = Timestamp(1_800_000_000_500);
const TTL: Millis = Millis::from_secs(1800);

fn keys(secret: &str, previous: &[String]) -> Keys {
    Keys::open(secret, previous, Path::new("/nonexistent")).unwrap()
}

fn tokens() -> AccessTokens {
    AccessTokens::new(&keys("a secret for tests, long enough", &[]), TTL)
}

fn grant() -> Grant {
    let identity = Identity {
        user_id: UserId(Uuid::now_v7()),
        roles: Roles::CUSTOMER.with(Role::Staff),
        session: SessionId(Uuid::now_v7()),
    };
    Grant {
        identity,
        sessions_from: Timestamp(NOW.0 - 1000),
    }
}

/// The instant so many milliseconds after [`NOW`].
fn after(ms: i64) -> Timestamp {
    NOW.plus(Millis(ms))
}

#[test]
fn a_token_identifies_its_user_until_it_expires() {
    let tokens = tokens();
    let grant = grant();
    let token = tokens.mint(&grant, NOW);
    for _ in 0..2 {
        assert_eq!(tokens.identify(&token, NOW), Ok(grant.identity));
        assert_eq!(
            tokens.identify(&token, after(TTL.0 - 1000)),
            Ok(grant.identity)
        );
        assert_eq!(
            tokens.identify(&token, after(TTL.0)),
            Err(TokenRefusal::Expired)
        );
    }
}

#[test]
fn a_token_uses_characters_that_may_stand_in_a_url() {
    let token = tokens().mint(&grant(), NOW);
    assert!(
        token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    );
}

#[test]
fn a_token_that_was_changed_or_signed_otherwise_is_invalid() {
    let tokens = tokens();
    let grant = grant();
    let token = tokens.mint(&grant, NOW);
    let other = AccessTokens::new(&keys("another secret, long enough too", &[]), TTL);
    assert_eq!(other.identify(&token, NOW), Err(TokenRefusal::Invalid));
    assert_eq!(tokens.identify(&token, NOW), Ok(grant.identity));
    // One cached token makes no other one good that starts or ends like it.
    assert_eq!(
        tokens.identify(&token[..token.len() - 1], NOW),
        Err(TokenRefusal::Invalid)
    );
    assert_eq!(
        tokens.identify(&format!("{token}A"), NOW),
        Err(TokenRefusal::Invalid)
    );
    for text in ["", ".", "..", "a.b.c", &"x".repeat(TOKEN_LEN_MAX + 1)] {
        assert_eq!(
            tokens.identify(text, NOW),
            Err(TokenRefusal::Invalid),
            "{text}"
        );
    }
}

#[test]
fn an_unsigned_token_and_one_of_another_algorithm_are_invalid() {
    use base64::Engine as _;
    let tokens = tokens();
    let token = tokens.mint(&grant(), NOW);
    let mut parts = token.split('.');
    let (_, claims, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"HS512","typ":"JWT"}"#,
    ] {
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
        for signature in ["", signature] {
            let forged = format!("{header}.{claims}.{signature}");
            assert_eq!(tokens.identify(&forged, NOW), Err(TokenRefusal::Invalid));
        }
    }
}

#[test]
fn a_token_of_a_previous_secret_is_still_taken() {
    let old = AccessTokens::new(&keys("the secret of last year, long", &[]), TTL);
    let keys = keys(
        "a secret for tests, long enough",
        &["the secret of last year, long".into()],
    );
    let grant = grant();
    let new = AccessTokens::new(&keys, TTL);
    assert_eq!(
        new.identify(&old.mint(&grant, NOW), NOW),
        Ok(grant.identity)
    );
    assert_eq!(
        old.identify(&new.mint(&grant, NOW), NOW),
        Err(TokenRefusal::Invalid)
    );
}

#[test]
fn a_change_of_roles_ends_cached_and_unseen_tokens_at_once_and_spares_new_ones() {
    let tokens = tokens();
    let old = grant();
    let (seen, unseen) = (tokens.mint(&old, NOW), tokens.mint(&old, after(1000)));
    assert!(tokens.identify(&seen, NOW).is_ok());
    tokens.revoke_user(old.identity.user_id, NOW, NOW);
    assert_eq!(tokens.identify(&seen, NOW), Err(TokenRefusal::Revoked));
    assert_eq!(tokens.identify(&unseen, NOW), Err(TokenRefusal::Revoked));
    // Granted within the same millisecond, but with the new roles.
    let new = Grant {
        sessions_from: NOW,
        ..old
    };
    assert!(tokens.identify(&tokens.mint(&new, NOW), NOW).is_ok());
    // Others are not touched.
    let other = tokens.mint(&grant(), NOW);
    assert!(tokens.identify(&other, NOW).is_ok());
}

#[test]
fn the_end_of_a_session_ends_its_tokens_only() {
    let tokens = tokens();
    let grant = grant();
    let elsewhere = Grant {
        identity: Identity {
            session: SessionId(Uuid::now_v7()),
            ..grant.identity
        },
        ..grant
    };
    let (token, kept) = (tokens.mint(&grant, NOW), tokens.mint(&elsewhere, NOW));
    assert!(tokens.identify(&token, NOW).is_ok());
    tokens.revoke_session(grant.identity.session, NOW);
    assert_eq!(tokens.identify(&token, NOW), Err(TokenRefusal::Revoked));
    assert!(tokens.identify(&kept, NOW).is_ok());
}

#[test]
fn revocations_are_forgotten_only_once_no_token_needs_them() {
    let tokens = tokens();
    let grant = grant();
    let token = tokens.mint(&grant, after(1000));
    tokens.revoke_user(grant.identity.user_id, NOW, NOW);
    let last_ms = after(1000 + TTL.0 - 1000);
    tokens.revoke_session(SessionId(Uuid::now_v7()), last_ms);
    assert_eq!(tokens.identify(&token, last_ms), Err(TokenRefusal::Revoked));
    tokens.revoke_session(
        SessionId(Uuid::now_v7()),
        after(TTL.0 + 2 * REVOCATION_SLACK_MS),
    );
    let lists = tokens.revocations.lists.read();
    assert_eq!((lists.users.len(), lists.sessions.len()), (0, 2));
}

#[test]
fn the_cache_is_bounded_and_drives_out_who_dies_first() {
    let cache = Cache::new(1);
    let revocations = Revocations::new(TTL);
    let verified = |dies_in: i64| Verified {
        grant: grant(),
        expires_at: after(dies_in),
    };
    for (token, dies_in) in [
        ("a", 4000),
        ("b", 1000),
        ("c", 3000),
        ("d", 2000),
        ("e", 5000),
    ] {
        cache.keep(token, verified(dies_in), 0);
    }
    let found = |token| cache.find(token, NOW, &revocations).is_some();
    assert!(["a", "c", "d", "e"].into_iter().all(found));
    assert!(!found("b"));
    assert_eq!(cache.sets[0].read().iter().flatten().count(), CACHE_WAYS);
}

#[test]
fn a_shorter_life_of_tokens_holds_for_those_made_before() {
    let keys = keys("a secret for tests, long enough", &[]);
    let grant = grant();
    let token = AccessTokens::new(&keys, TTL).mint(&grant, NOW);
    let shorter = AccessTokens::new(&keys, Millis::from_secs(60));
    assert!(shorter.identify(&token, after(58_000)).is_ok());
    assert_eq!(
        shorter.identify(&token, after(61_000)),
        Err(TokenRefusal::Expired)
    );
}
