//! CORS, on every answer, errors included.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Answers `OPTIONS` and adds the four headers to everything else.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let upload = request.uri().path().starts_with("/api/sync/upload/");
    let (methods, headers) = if upload {
        ("GET, HEAD, OPTIONS, PUT", "Content-Type, Range, Authorization, X-Upload-Token")
    } else {
        ("GET, HEAD, OPTIONS", "Content-Type, Range, Authorization")
    };
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        response.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        response
    } else {
        next.run(request).await
    };
    let all = response.headers_mut();
    all.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    all.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    all.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers));
    let exposed = "Content-Range, Content-Length, ETag, Accept-Ranges";
    all.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    response
}
