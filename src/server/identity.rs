//! Who is asking, and whether they may.

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use super::App;
use super::refusal::Refusal;
use crate::access::{Caller, Standing, standing};
use crate::model::Token;
use crate::store::Database;

impl App {
    /// Who sent these headers. No token, or an empty one as the original client sends it, is anonymous; a token
    /// nobody knows is refused everywhere, so that a mistyped one is noticed.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let unknown =
            || Refusal::Api(StatusCode::UNAUTHORIZED, "This token is not known here: log in again".into());
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        let value = value.to_str().map_err(|_| unknown())?;
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown());
        }
        let token = Token::new(token);
        if token.reveal().is_empty() {
            return Ok(Caller::Anonymous);
        }
        match self.store.account_of(&token).await? {
            Some(account) => Ok(Caller::Account { id: account.id, username: account.username }),
            None => Err(unknown()),
        }
    }
}

/// Lets `caller` at a database that may or may not have been found, if they may do `needed`.
pub(super) fn admit(
    caller: &Caller,
    found: Option<Arc<Database>>,
    needed: Standing,
) -> Result<Arc<Database>, Refusal> {
    let Some(database) = found else { return Err(Refusal::hidden(caller)) };
    let settings = database.settings();
    match standing(caller, &settings.owner, settings.visibility) {
        Standing::Nothing => Err(Refusal::hidden(caller)),
        held if held >= needed => Ok(database),
        // They can see it, so there is nothing to hide.
        _ => match caller {
            Caller::Anonymous => {
                Err(Refusal::Api(StatusCode::UNAUTHORIZED, "Publishing needs a token: log in".into()))
            }
            Caller::Account { .. } => {
                Err(Refusal::Api(StatusCode::FORBIDDEN, "Only the owner may publish here".into()))
            }
        },
    }
}
