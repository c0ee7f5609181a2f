//! A request's parts, each a problem document when it is not what its path takes.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The path's variable segments, decoded.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Segments(segments)),
            Err(why) => {
                Err(Problem::invalid(format!("the path cannot be read: {}", one_line(&why.body_text()))))
            }
        }
    }
}

/// What stands behind the question mark. A field that the path does not know is refused: a
/// misspelt one would be passed over.
#[derive(Debug)]
pub struct Fields<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Fields<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(fields)) => Ok(Fields(fields)),
            Err(why) => {
                Err(Problem::invalid(format!("the query cannot be read: {}", one_line(&why.body_text()))))
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").trim_start_matches("Failed to deserialize query string: ").to_string()
}

/// A header as text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Problem::invalid(format!("the header '{name}' is not plain text"))),
    }
}

/// The body's media type in small letters, without its parameters: empty when none is given, one
/// of `known` (or what clients send who name none), or a problem. A body that is packed is refused
/// too: nothing here unpacks.
pub fn media_type(headers: &HeaderMap, known: &[&str]) -> Result<String, Problem> {
    /// What `curl --data` and plain clients say when nobody tells them.
    const ANY: [&str; 4] =
        ["", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"];
    if let Some(coding) = header_text(headers, header::CONTENT_ENCODING.as_str())?
        && !coding.eq_ignore_ascii_case("identity")
    {
        let detail =
            format!("the body is packed ('Content-Encoding: {coding}'), and nothing here unpacks it");
        return Err(Problem::wrong_media(detail, "send the body as it is, without Content-Encoding"));
    }
    let given = header_text(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if known.contains(&media.as_str()) || ANY.contains(&media.as_str()) {
        return Ok(media);
    }
    let detail = format!("this path does not take '{media}': it takes {}", known.join(", "));
    Err(Problem::wrong_media(detail, "send the body as one of the media types that the path takes"))
}
