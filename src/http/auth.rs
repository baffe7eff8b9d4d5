//! Who makes a request: extractors that take the identity from the access
//! token, and from nothing else.

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::error::{Code, Problem};
use super::tokens::{Identity, Lasting};
use crate::app::App;
use crate::domain::roles::Role;

/// A signed-in user, of whatever role; 401 for others.
#[derive(Clone, Copy, Debug)]
pub struct SignedIn(pub Identity);

/// A signed-in user, or nobody where no token was sent; 401 for a bad token.
#[derive(Clone, Copy, Debug)]
pub struct MaybeSignedIn(pub Option<Identity>);

/// An organizer or an admin; 401 or 403 for others.
#[derive(Clone, Copy, Debug)]
pub struct Organizer(pub Identity);

/// Who checks tickets in, or an admin; 401 or 403 for others.
#[derive(Clone, Copy, Debug)]
pub struct Staff(pub Identity);

/// An admin; 401 or 403 for others.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub Identity);

/// Who opens a socket. Browsers can't set headers there, so the token may also
/// come as `?access_token=` or in `Sec-WebSocket-Protocol`. 401 for a bad
/// token, before the upgrade.
#[derive(Clone, Debug)]
pub struct SocketCaller {
    /// The user, or nobody where no token was sent.
    pub identity: Option<Identity>,
    /// To look later whether the token is still good.
    pub token: Option<Lasting>,
    /// The subprotocol to accept, if one was offered that has to do with the
    /// token: a browser fails a connection that accepts none of its offers.
    pub protocol: Option<String>,
}

impl SocketCaller {
    /// The user, where the socket is for signed-in users.
    ///
    /// # Errors
    /// 401 `unauthorized`.
    pub fn signed_in(&self) -> Result<Identity, Problem> {
        self.identity.ok_or_else(nobody)
    }
}

/// The identity behind a token.
///
/// # Errors
/// 401 `unauthorized`.
pub fn identify(app: &App, token: &str) -> Result<Identity, Problem> {
    app.accounts
        .identify(token)
        .map_err(|refusal| Problem::new(Code::Unauthorized).detail(refusal.to_string()))
}

fn nobody() -> Problem {
    Problem::new(Code::Unauthorized).detail("send an access token: Authorization: Bearer <token>")
}

/// The caller by the `Authorization` header; `None` without one.
fn caller(parts: &Parts, app: &App) -> Result<Option<Identity>, Problem> {
    let token = token_in_header(parts)?;
    token.map(|token| identify(app, token)).transpose()
}

fn token_in_header(parts: &Parts) -> Result<Option<&str>, Problem> {
    match parts.headers.get(header::AUTHORIZATION) {
        None => Ok(None),
        Some(value) => match value.to_str().ok().and_then(bearer) {
            Some(token) => Ok(Some(token)),
            None => Err(nobody()),
        },
    }
}

/// The token in `Bearer <token>`; the scheme is case-insensitive (RFC 9110
/// §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start_matches(' '))
}

fn signed_in(parts: &Parts, app: &App) -> Result<Identity, Problem> {
    caller(parts, app)?.ok_or_else(nobody)
}

fn with_role(parts: &Parts, app: &App, roles: &[Role]) -> Result<Identity, Problem> {
    let identity = signed_in(parts, app)?;
    if roles.iter().any(|&role| identity.roles.has(role)) {
        Ok(identity)
    } else {
        Err(Problem::new(Code::Forbidden))
    }
}

/// Implements an extractor by a function of the request's parts and the app.
macro_rules! extractor {
    ($($name:ty: $of:expr;)*) => {$(
        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = Problem;

            fn from_request_parts(
                parts: &mut Parts,
                app: &Arc<App>,
            ) -> impl Future<Output = Result<Self, Problem>> + Send {
                let of: fn(&Parts, &App) -> Result<Self, Problem> = $of;
                at_once(of(parts, app))
            }
        }
    )*};
}

extractor! {
    SignedIn: |parts, app| signed_in(parts, app).map(Self);
    MaybeSignedIn: |parts, app| caller(parts, app).map(Self);
    Organizer: |parts, app| with_role(parts, app, &[Role::Organizer, Role::Admin]).map(Self);
    Staff: |parts, app| with_role(parts, app, &[Role::Staff, Role::Admin]).map(Self);
    Admin: |parts, app| with_role(parts, app, &[Role::Admin]).map(Self);
    SocketCaller: socket_caller;
}

fn at_once<T>(value: T) -> Ready<T> {
    ready(value)
}

fn socket_caller(parts: &Parts, app: &App) -> Result<SocketCaller, Problem> {
    let offered = token_in_protocols(&parts.headers);
    let protocol = offered.as_ref().map(|offer| offer.accept.to_owned());
    let token = token_in_header(parts)?
        .or_else(|| token_in_query(parts.uri.query()))
        .or(offered.map(|offer| offer.token));
    let identity = token.map(|token| identify(app, token)).transpose()?;
    Ok(SocketCaller {
        identity,
        // It has just been found good.
        token: token.and_then(|token| app.accounts.lasting(token).ok()),
        protocol,
    })
}

/// Tokens need no percent-encoding, so the query is not decoded.
fn token_in_query(query: Option<&str>) -> Option<&str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("access_token="))
}

/// A token among the offered subprotocols, and which of them to accept.
#[derive(Debug, PartialEq, Eq)]
struct OfferedToken<'a> {
    token: &'a str,
    accept: &'a str,
}

/// Looks for a token among the subprotocols: as `bearer, <token>`, where
/// `bearer` is accepted, or alone.
fn token_in_protocols(headers: &HeaderMap) -> Option<OfferedToken<'_>> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim);
    let mut name = None;
    let token = offers.find(|offer| {
        // A JWT has two dots; a name of a protocol that has two is not ours.
        let is_token = offer.bytes().filter(|&byte| byte == b'.').count() == 2;
        if !is_token && offer.eq_ignore_ascii_case("bearer") {
            name = Some(*offer);
        }
        is_token
    })?;
    Some(OfferedToken {
        token,
        accept: name.unwrap_or(token),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_of_a_token_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer a.b.c"), Some("a.b.c"));
        assert_eq!(bearer("bEARER  a.b.c"), Some("a.b.c"));
        assert_eq!(bearer("Basic a.b.c"), None);
        assert_eq!(bearer("a.b.c"), None);
    }

    #[test]
    fn a_socket_takes_its_token_from_the_query_or_the_subprotocols() {
        assert_eq!(
            token_in_query(Some("queue_pass=p&access_token=a.b.c")),
            Some("a.b.c")
        );
        assert_eq!(token_in_query(Some("my_access_token=a.b.c")), None);
        let headers = |value| {
            HeaderMap::from_iter([(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(value),
            )])
        };
        let offer = |token, accept| Some(OfferedToken { token, accept });
        assert_eq!(
            token_in_protocols(&headers("bearer, a.b.c")),
            offer("a.b.c", "bearer")
        );
        assert_eq!(
            token_in_protocols(&headers("a.b.c")),
            offer("a.b.c", "a.b.c")
        );
        assert_eq!(token_in_protocols(&headers("bearer")), None);
    }
}
