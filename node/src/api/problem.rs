//! Problem documents (RFC 9457): every error over HTTP says what, why and what to do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_protocol::rpc::{Fault, FaultKind};
use serde::{Deserialize, Serialize};

/// The media type of RFC 9457.
pub const MEDIA_TYPE: &str = "application/problem+json";
const TYPE_PREFIX: &str = "urn:dunlin:problem:";

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:dunlin:problem:WORD`; the word names the kind and stays.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// One sentence about this very case.
    pub detail: String,
    /// What to do about this kind of problem.
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, word: &str, title: &str, detail: impl Into<String>, action: &str) -> Problem {
        Problem {
            kind: format!("{TYPE_PREFIX}{word}"),
            title: title.to_string(),
            status: status.as_u16(),
            detail: detail.into(),
            action: action.to_string(),
            retry_after_ms: None,
        }
    }

    pub fn unauthorized() -> Problem {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The bearer token is missing or wrong",
            "this path answers only to the node's bearer token",
            "send 'Authorization: Bearer TOKEN' with the token from the file 'bearer' in the node's data folder",
        )
    }

    pub fn no_such_path(path: &str) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "There is nothing at this path",
            format!("'{path}' is no path of this API"),
            "see the paths under /v1: status, nodes, pipelines, modules, streams, state",
        )
    }

    pub fn wrong_method(method: &str, path: &str) -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong-method",
            "The path does not take this method",
            format!("'{path}' does not take {method}"),
            "use the method that the Allow header names",
        )
    }

    pub fn too_large(what: &str, limit: usize) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The request is too large",
            format!("{what} may have at most {limit} bytes here"),
            "send less at once: nothing of this request was taken",
        )
    }

    pub fn wrong_media(detail: impl Into<String>, action: &str) -> Problem {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "wrong-media-type",
            "The body is of another kind than the path takes",
            detail,
            action,
        )
    }

    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::from(&Fault { kind: FaultKind::Invalid, detail: detail.into() })
    }

    pub fn unknown(detail: impl Into<String>) -> Problem {
        Problem::from(&Fault { kind: FaultKind::Unknown, detail: detail.into() })
    }

    pub fn not_yet(detail: impl Into<String>) -> Problem {
        Problem::from(&Fault { kind: FaultKind::NotYet, detail: detail.into() })
    }

    /// The fault behind it, as a client sees it.
    pub fn into_fault(self) -> Fault {
        let kind = match self.kind.strip_prefix(TYPE_PREFIX) {
            Some("unknown" | "no-such-path") => FaultKind::Unknown,
            Some("conflict") => FaultKind::Conflict,
            Some("busy") => FaultKind::Busy { retry_after_ms: self.retry_after_ms.unwrap_or(1000) },
            Some("not-yet") => FaultKind::NotYet,
            Some("unavailable") => FaultKind::Unavailable,
            Some("storage") => FaultKind::Storage,
            Some(_) | None => FaultKind::Invalid,
        };
        Fault { kind, detail: self.detail }
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        let (status, word, title, action) = match fault.kind {
            FaultKind::Invalid => (
                StatusCode::BAD_REQUEST,
                "invalid",
                "The request is wrong",
                "correct the request and send it again",
            ),
            FaultKind::Unknown => (
                StatusCode::NOT_FOUND,
                "unknown",
                "There is no such thing",
                "check the name; GET /v1/pipelines lists what runs",
            ),
            FaultKind::Conflict => (
                StatusCode::CONFLICT,
                "conflict",
                "The request contradicts what stands",
                "look at what stands now and send a request that follows it",
            ),
            FaultKind::Busy { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "The node asks to wait",
                "wait for Retry-After and send the same request again",
            ),
            FaultKind::NotYet => (
                StatusCode::NOT_IMPLEMENTED,
                "not-yet",
                "This version cannot do that",
                "leave it out, or use a later version",
            ),
            FaultKind::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Something that is needed cannot be reached",
                "look at GET /v1/nodes and try again when the node is back",
            ),
            FaultKind::Storage => (
                StatusCode::INSUFFICIENT_STORAGE,
                "storage",
                "The node cannot write to its disk",
                "make space on the node's disk and try again: the node goes on by itself",
            ),
        };
        let mut problem = Problem::new(status, word, title, fault.detail.clone(), action);
        if let FaultKind::Busy { retry_after_ms } = fault.kind {
            problem.retry_after_ms = Some(retry_after_ms);
        }
        problem
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Problem::from(&fault)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after_ms = self.retry_after_ms;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(ms) = retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_its_problem_document() {
        for kind in [
            FaultKind::Invalid,
            FaultKind::Unknown,
            FaultKind::Conflict,
            FaultKind::Busy { retry_after_ms: 250 },
            FaultKind::NotYet,
            FaultKind::Unavailable,
            FaultKind::Storage,
        ] {
            let fault = Fault { kind, detail: "because".to_string() };
            assert_eq!(Problem::from(&fault).into_fault(), fault);
        }
    }
}
