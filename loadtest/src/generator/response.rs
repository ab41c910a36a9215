//! Parses responses on a pipelined connection: just enough HTTP/1.1 to find the end and the content of each.

use std::time::Duration;

/// The longest head that is accepted.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// How many readings were accepted; 0 if the response has no count.
    pub(crate) accepted: u64,
    pub(crate) retry_after: Option<Duration>,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
    /// Its length in the input, in bytes.
    pub(crate) bytes: usize,
}

/// Why this client cannot parse a response.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the response is not HTTP/1.1")]
    NoHttp,
    #[error("the response has no Content-Length")]
    NoLength,
}

/// Parses the first response in the input. `None` means that it is incomplete.
///
/// # Errors
/// [`AnswerError`]: do not use the connection any more.
pub(crate) fn parse(input: &[u8]) -> Result<Option<Answer>, AnswerError> {
    let Some(head_bytes) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return if input.len() > HEAD_BYTES_MAX {
            Err(AnswerError::NoHttp)
        } else {
            Ok(None)
        };
    };
    let head = std::str::from_utf8(&input[..head_bytes]).map_err(|_| AnswerError::NoHttp)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.get(2..5)?.parse().ok())
        .ok_or(AnswerError::NoHttp)?;
    let (mut length, mut retry_after, mut closes) = (None, None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.parse().ok().map(Duration::from_secs);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let bytes = head_bytes + 4 + length.ok_or(AnswerError::NoLength)?;
    if input.len() < bytes {
        return Ok(None);
    }
    Ok(Some(Answer {
        status,
        accepted: accepted(&input[head_bytes + 4..bytes]).unwrap_or(0),
        retry_after,
        closes,
        bytes,
    }))
}

/// Finds the number after `"accepted":` without parsing the rest.
pub(super) fn accepted(body: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"accepted\":";
    let at = body.windows(NAME.len()).position(|bytes| bytes == NAME)?;
    let digits = body[at + NAME.len()..]
        .iter()
        .skip_while(|byte| **byte == b' ')
        .take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        let digit = u64::from(digit - b'0');
        number = Some(
            number
                .unwrap_or(0_u64)
                .checked_mul(10)?
                .checked_add(digit)?,
        );
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n\
        Content-Length: 32\r\n\r\n{\"success\":true,\"accepted\": 498}\n";
    const SHED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\
        connection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn a_response_gives_its_status_and_the_accepted_readings() {
        let answer = parse(TAKEN).unwrap().unwrap();
        assert_eq!((answer.status, answer.accepted), (202, 498));
        assert_eq!(answer.bytes, TAKEN.len() - 1);
        let answer = parse(SHED).unwrap().unwrap();
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        assert!(answer.closes);
    }

    #[test]
    fn an_incomplete_answer_is_waited_for() {
        for length in 0..TAKEN.len() - 1 {
            assert_eq!(parse(&TAKEN[..length]), Ok(None));
        }
    }

    #[test]
    fn a_malformed_response_is_an_error() {
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), Err(AnswerError::NoHttp));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Err(AnswerError::NoLength));
    }
}
