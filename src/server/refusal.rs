//! Every answer that is not what was asked for.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::access::Caller;
use crate::model::{DbPath, Revision};
use crate::store::{PublishError, StoreError, UploadError};
use crate::wire::{ErrorBody, MovedBody, RejectedBody};

/// An error answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// `{"error": …}`.
    Api(StatusCode, String),
    /// Plain text, for raw files.
    Raw(StatusCode, String),
    /// A commit whose base is not current.
    Moved(Revision),
    /// A commit that cannot be.
    Rejected(String, Vec<DbPath>),
}

impl Refusal {
    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::Api(StatusCode::BAD_REQUEST, why.into())
    }

    /// Absent or forbidden: one answer, so that neither can be told from the other (rule 29).
    pub(super) fn hidden(caller: &Caller) -> Self {
        match caller {
            Caller::Anonymous => Self::Api(StatusCode::UNAUTHORIZED, "Not found, or private: log in".into()),
            Caller::Account { .. } => Self::Api(StatusCode::NOT_FOUND, "Not found".into()),
        }
    }

    /// The same refusal as raw files speak it.
    pub(super) fn into_raw(self) -> Self {
        match self {
            Self::Api(status, text) => Self::Raw(status, text),
            other => other,
        }
    }
}

impl From<StoreError> for Refusal {
    /// The cause is for the server's log; the client learns only that it was not its fault.
    fn from(error: StoreError) -> Self {
        if let StoreError::Expired { .. } = error {
            return Self::Api(StatusCode::GONE, error.to_string());
        }
        tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
        Self::Api(StatusCode::INTERNAL_SERVER_ERROR, "The server's store failed; nothing was changed".into())
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Moved { current } => Self::Moved(current),
            PublishError::Rejected { reason, paths } => Self::Rejected(reason, paths),
            PublishError::Store(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store failed while publishing"
                );
                let text = "The server's store failed; send the same commit again to learn its fate";
                Self::Api(StatusCode::INTERNAL_SERVER_ERROR, text.into())
            }
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) => error.into(),
            wrong => Self::Api(StatusCode::UNPROCESSABLE_ENTITY, wrong.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = match self {
            Self::Api(status, error) => (status, Json(ErrorBody { error })).into_response(),
            Self::Raw(status, text) => (status, text + "\n").into_response(),
            Self::Moved(revision) => {
                let error = format!("The database has moved on to revision {revision}");
                (StatusCode::PRECONDITION_FAILED, Json(MovedBody { error, revision })).into_response()
            }
            Self::Rejected(error, paths) => {
                let paths = paths.iter().map(|path| path.as_str().to_owned()).collect();
                (StatusCode::UNPROCESSABLE_ENTITY, Json(RejectedBody { error, paths })).into_response()
            }
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        debug_assert!(response.headers().contains_key(CONTENT_TYPE));
        response
    }
}
