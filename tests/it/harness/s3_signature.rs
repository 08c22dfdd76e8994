//! AWS's signature, version 4, for a request that was changed on its way: the same signer, scope and time, over the
//! signed headers that are left.

use std::str::FromStr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use ring::hmac;

use super::s3::SECRET_KEY;
use super::sha256;

/// What an `Authorization` header says, but for the signature.
struct Authorization {
    /// Key, day, region, service and a fixed word.
    credential: String,
    signed_headers: Vec<String>,
}

/// Signs a request again, if it is signed.
pub fn sign_again(parts: &mut Parts) {
    let Some(said) = parts.headers.get(header::AUTHORIZATION) else { return };
    let mut authorization: Authorization = said.to_str().unwrap().parse().unwrap();
    authorization.signed_headers.retain(|name| parts.headers.contains_key(name));
    let header = authorization.over(parts);
    parts.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&header).unwrap());
}

impl FromStr for Authorization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange = || format!("not a signature of version 4: {text:?}");
        let fields = text.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(strange)?;
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let signed_headers =
            field("SignedHeaders").ok_or_else(strange)?.split(';').map(str::to_owned).collect();
        Ok(Self { credential: field("Credential").ok_or_else(strange)?.to_owned(), signed_headers })
    }
}

impl Authorization {
    /// The header with the signature over `parts`.
    fn over(&self, parts: &Parts) -> String {
        let Self { credential, signed_headers } = self;
        let signed_headers = signed_headers.join(";");
        let (_, scope) = credential.split_once('/').unwrap();
        let date = text(&parts.headers, "x-amz-date");
        let request = sha256(self.canonical(parts).as_bytes());
        let signature = sign(scope, &format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request}"));
        format!(
            "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_headers}, Signature={signature}"
        )
    }

    /// The request as both sides write it down before they sign it.
    fn canonical(&self, parts: &Parts) -> String {
        let mut query: Vec<_> = parts.uri.query().unwrap_or_default().split('&').collect();
        query.sort_unstable();
        let lines = self.signed_headers.iter().map(|name| format!("{name}:{}\n", text(&parts.headers, name)));
        let lines: String = lines.collect();
        let payload = text(&parts.headers, "x-amz-content-sha256");
        let (method, path) = (&parts.method, parts.uri.path());
        format!(
            "{method}\n{path}\n{}\n{lines}\n{}\n{payload}",
            query.join("&"),
            self.signed_headers.join(";")
        )
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap().trim());
    values.collect::<Vec<_>>().join(",")
}

/// The key is made for the scope: each of its words is signed with what the word before it gave.
fn sign(scope: &str, message: &str) -> String {
    let step = |key: Vec<u8>, word: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), word.as_bytes()).as_ref().to_vec()
    };
    let key = scope.split('/').fold(format!("AWS4{SECRET_KEY}").into_bytes(), step);
    hex::encode(step(key, message))
}
