//! JSON documents: responses, and request bodies other than readings.

use hyper::StatusCode;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
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
    // serde would also accept an array of the fields' values for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        serde_json::from_slice::<IgnoredAny>(body).map_err(problem_of)?;
        let detail = "the body must be a JSON object";
        return Err(Problem::new(Kind::InvalidContent, detail));
    }
    serde_json::from_slice(body).map_err(problem_of)
}

fn problem_of(error: serde_json::Error) -> Problem {
    let kind = match error.classify() {
        Category::Data => Kind::InvalidContent,
        Category::Io | Category::Syntax | Category::Eof => Kind::UnreadableBody,
    };
    Problem::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        at: u32,
    }

    #[test]
    fn a_body_that_is_no_object_is_explained_without_the_names_of_types() {
        assert_eq!(parse::<Body>(b" {\"at\":7}").unwrap().at, 7);
        for body in ["[]", "[7]", "[\"x\"]", "[7,8]", "7", "null", "\"at\""] {
            let problem = parse::<Body>(body.as_bytes()).unwrap_err();
            let (_, detail) = problem.explained();
            assert_eq!(detail, "the body must be a JSON object", "{body}");
        }
        for (body, part) in [
            ("{}", "missing field `at`"),
            ("{\"at\":1,\"b\":2}", "unknown field `b`"),
            ("{\"at\":", "EOF"),
        ] {
            let problem = parse::<Body>(body.as_bytes()).unwrap_err();
            assert!(problem.explained().1.contains(part), "{body}");
        }
    }
}
