//! Who a request is from. One header says it; two that say it are refused.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::problem::Problem;
use crate::service::Principal;

const EMAIL: &str = "x-user-email";
const GUEST: &str = "x-guest-id";
/// So many principals are remembered before those who have not asked for a while are forgotten.
const PRINCIPALS_MAX: usize = 10_000;
/// What a proxy adds. A request that came through one is not from this machine, whatever its peer's address.
const FORWARDING: [&str; 6] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Tells who asks, and how often they may.
pub struct Authenticator {
    client: Client,
    audience: String,
    guests: bool,
    limiter: DefaultKeyedRateLimiter<Principal>,
}

impl Authenticator {
    /// `audience`: for whom a bearer token must be meant. `guests`: whether they are let in.
    #[must_use]
    pub fn new(client: Client, audience: String, guests: bool, per_minute: std::num::NonZeroU32) -> Self {
        Self { client, audience, guests, limiter: RateLimiter::keyed(Quota::per_minute(per_minute)) }
    }

    async fn principal(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<Principal, Problem> {
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        // Some gateways take `_` for `-` (CVE-2025-64484): neither is believed.
        if headers
            .keys()
            .any(|name| name.as_str().contains('_') && [EMAIL, GUEST].contains(&name.as_str().replace('_', "-").as_str()))
        {
            return Err(unauthorized("write X-User-Email and X-Guest-Id with hyphens"));
        }
        match (one(headers, &header::AUTHORIZATION)?, one(headers, &EMAIL_HEADER)?, one(headers, &GUEST_HEADER)?) {
            (Some(value), None, None) => match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.user(token.trim()).await,
                _ => Err(unauthorized("the Authorization header must be: Bearer TOKEN")),
            },
            (None, Some(address), None) => email(peer, headers, address),
            (None, None, Some(id)) if self.guests => guest(id),
            (None, None, Some(_)) => Err(unauthorized("guests are not let in here; send a bearer token")),
            (None, None, None) => Err(unauthorized("say who you are: send Authorization: Bearer TOKEN")),
            _ => Err(unauthorized("send one of Authorization, X-User-Email and X-Guest-Id")),
        }
    }

    /// The API server compares tokens, not we.
    async fn user(&self, token: &str) -> Result<Principal, Problem> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) },
            ..Default::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        // The error of a refused review may repeat the token.
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the API server can't review the token now"))?;
        let status = review.status.unwrap_or_default();
        let for_us = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        let user = status.user.unwrap_or_default();
        match user.username {
            Some(name) if status.authenticated == Some(true) && for_us => {
                Ok(Principal::User { name, groups: user.groups.unwrap_or_default() })
            }
            _ => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                format!("the bearer token is not valid, or not for audience {}", self.audience),
            )),
        }
    }
}

const EMAIL_HEADER: HeaderName = HeaderName::from_static(EMAIL);
const GUEST_HEADER: HeaderName = HeaderName::from_static(GUEST);

/// The one value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, format!("{name} was sent twice")));
    }
    value.to_str().map(Some).map_err(|_| Problem::new(StatusCode::UNAUTHORIZED, format!("{name} must be plain ASCII")))
}

fn email(peer: SocketAddr, headers: &HeaderMap, address: &str) -> Result<Principal, Problem> {
    if !peer.ip().to_canonical().is_loopback() || FORWARDING.iter().any(|name| headers.contains_key(*name)) {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "X-User-Email is believed from this machine only; send a bearer token",
        ));
    }
    let plausible = address.len() <= 254
        && address.chars().all(|c| c.is_ascii_graphic() && c != ',')
        && address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if plausible {
        return Ok(Principal::Email(address.to_ascii_lowercase()));
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "X-User-Email must be one email address"))
}

fn guest(id: &str) -> Result<Principal, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (8..=64).contains(&id.len()) && id.chars().all(plain) {
        return Ok(Principal::Guest(id.to_owned()));
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "X-Guest-Id must be 8 to 64 characters of A-Z a-z 0-9 . _ -"))
}

/// Lets a request through with its [`Principal`] in the extensions, or answers it.
pub(super) async fn authenticate(
    State(authenticator): State<Arc<Authenticator>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match authenticator.principal(peer, request.headers()).await {
        Ok(principal) => principal,
        Err(problem) => return problem.into_response(),
    };
    if let Err(wait) = authenticator.limiter.check_key(&principal) {
        let seconds = wait.wait_time_from(authenticator.limiter.clock().now()).as_secs() + 1;
        let detail = format!("too many requests; try again in {seconds} s");
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds).into_response();
    }
    // Whoever has not asked for a while is forgotten, when there are many of them.
    if authenticator.limiter.len() > PRINCIPALS_MAX {
        authenticator.limiter.retain_recent();
    }
    request.extensions_mut().insert(principal);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_email_is_believed_from_this_machine_only() {
        let local = "127.0.0.1:1".parse().unwrap();
        let none = headers(&[]);
        assert_eq!(email(local, &none, "Ann@Example.com").unwrap(), Principal::Email("ann@example.com".to_owned()));
        assert!(email("[::ffff:127.0.0.1]:1".parse().unwrap(), &none, "a@b.c").is_ok());
        assert!(email("10.0.0.1:1".parse().unwrap(), &none, "a@b.c").is_err());
        for name in FORWARDING {
            assert!(email(local, &headers(&[(name, "x")]), "a@b.c").is_err(), "{name}");
        }
        for address in ["", "a", "@", "a@", "@b", "a@b@c", "a@b.c,d@e.f", "a b@c.d", &format!("{}@b.c", "a".repeat(260))] {
            assert!(email(local, &none, address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_guest_id_is_plain() {
        assert!(guest("0123-abc").is_ok());
        for id in ["", "short", "with space", "path/../x", &"x".repeat(65)] {
            assert!(guest(id).is_err(), "{id}");
        }
    }
}
