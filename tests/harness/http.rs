//! HTTP as any client speaks it.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A status, the headers that matter, and the body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

/// `request("GET", "127.0.0.1:7070", "/v1/status", Some(bearer), &[], "")`.
#[track_caller]
pub fn request(
    method: &str,
    address: &str,
    path: &str,
    bearer: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let answer = try_request(method, address, path, bearer, headers, body);
    answer.unwrap_or_else(|why| panic!("{method} {address}{path}: {why}"))
}

/// The same; an error when there is nobody, or the connection broke off.
pub fn try_request(
    method: &str,
    address: &str,
    path: &str,
    bearer: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .allow_non_standard_methods(true)
        .proxy(None)
        .build()
        .new_agent();
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let answer = match method {
        "GET" | "DELETE" | "HEAD" | "OPTIONS" => agent.run(request.body(()).unwrap()),
        _ => agent.run(request.body(body.to_string()).unwrap()),
    };
    let mut answer = answer.map_err(|why| why.to_string())?;
    let header =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
    let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_string();
    let body = body.map_err(|why| why.to_string())?;
    Ok(Answer { status: answer.status().as_u16(), content_type, retry_after, body })
}
