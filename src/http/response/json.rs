//! JSON documents: responses, and request bodies other than readings.

use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::{Kind, Problem};
use super::reply::{JSON, Reply, with_body};

/// Makes a JSON response.
pub(crate) fn reply(status: StatusCode, value: &impl Serialize) -> Result<Reply, Problem> {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(with_body(status, JSON, body)),
        Err(error) => {
            tracing::error!(%error, "a response could not be written as JSON");
            Err(Problem::new(
                Kind::Internal,
                "the response could not be written",
            ))
        }
    }
}

/// Parses a JSON object in a request strictly: unknown and missing fields are errors.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let document = serde_json::from_slice(body).map_err(|error| {
        let kind = match error.classify() {
            Category::Data => Kind::InvalidContent,
            Category::Io | Category::Syntax | Category::Eof => Kind::UnreadableBody,
        };
        Problem::new(kind, error.to_string())
    })?;
    // serde would also accept an array of the fields' values for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        let detail = "the body must be a JSON object";
        return Err(Problem::new(Kind::InvalidContent, detail));
    }
    Ok(document)
}
