//! A connection string as libpq reads it: the URL and the keyword form, decoded into names and
//! values.
//!
//! The gateway reads the string itself, because the driver knows fewer parameters than libpq and reports
//! neither an unknown nor a wrong one by name. No message repeats a value: any of them may be a misplaced
//! password.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// Names and values of a connection string; a later value replaces an earlier one, as in libpq.
pub(super) type Parameters = BTreeMap<String, String>;

const FORM: &str = "must be a PostgreSQL URL, such as postgres://user@host:5432/database";
/// What to do if a separator seems to be part of a password.
pub(super) const ENCODE: &str =
    "percent-encode reserved characters in the password (%40 for @, %2F for /, %3F for ?)";

/// Reads a connection string.
///
/// # Errors
/// A sentence about what is wrong, without any value.
pub(super) fn parameters(text: &str) -> Result<Parameters, String> {
    let text = text.trim();
    let schemes = ["postgres://", "postgresql://"];
    if let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        return url(rest);
    }
    let before_first_value = text.split('=').next().unwrap_or_default();
    if before_first_value.contains("://") || !text.contains('=') {
        return Err(FORM.to_owned());
    }
    keywords(text)
}

/// Whether a message may repeat a parameter's name: it could be a part of a password.
fn is_printable(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.len() <= 40 && name.bytes().all(known)
}

fn url(rest: &str) -> Result<Parameters, String> {
    let mut found = Parameters::new();
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match before.split_once('/') {
        Some((authority, database)) => (authority, database),
        None => (before, ""),
    };
    let hosts = match authority.split_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            put(&mut found, "user", user)?;
            put(&mut found, "password", password.unwrap_or_default())?;
            hosts
        }
        None => authority,
    };
    if hosts.contains('@') || (authority == hosts && database.contains('@')) {
        return Err(ENCODE.to_owned());
    }
    put_hosts(&mut found, hosts)?;
    put(&mut found, "dbname", database)?;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let Some((name, value)) = pair.split_once('=') else {
            if pair.is_empty() {
                continue;
            }
            return Err(format!(
                "has a parameter without `=` after the `?`; write name=value, or {ENCODE}"
            ));
        };
        let name = decoded(name)?;
        if !is_printable(&name) {
            return Err(format!("has a parameter with no valid name; {ENCODE}"));
        }
        found.insert(name, decoded(value)?);
    }
    Ok(found)
}

fn put(found: &mut Parameters, name: &str, value: &str) -> Result<(), String> {
    if !value.is_empty() {
        found.insert(name.to_owned(), decoded(value)?);
    }
    Ok(())
}

/// Reads `host:port,host:port`; an IPv6 address is in brackets.
fn put_hosts(found: &mut Parameters, hosts: &str) -> Result<(), String> {
    if hosts.is_empty() {
        return Ok(());
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for part in hosts.split(',') {
        let (name, port) = match part.strip_prefix('[') {
            Some(address) => {
                let (address, after) = address
                    .split_once(']')
                    .ok_or("has an IPv6 address without its closing `]`")?;
                let port = after.strip_prefix(':').or(after.is_empty().then_some(""));
                (
                    address,
                    port.ok_or("has something other than `:port` after `]`")?,
                )
            }
            None => part.split_once(':').unwrap_or((part, "")),
        };
        names.push(decoded(name)?);
        ports.push(decoded(port)?);
    }
    let number = |port: &String| port.is_empty() || port.parse::<u16>().is_ok();
    if !ports.iter().all(number) {
        return Err(format!(
            "has a port that is not a number from 1 to 65535; correct it, or {ENCODE}"
        ));
    }
    if names.iter().any(|name| !name.is_empty()) {
        found.insert("host".to_owned(), names.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        found.insert("port".to_owned(), ports.join(","));
    }
    Ok(())
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|_| "must be UTF-8, even if it is percent-encoded".to_owned())
}

/// Reads `name = value name = 'value with blanks'`, with `\` before a quote or another `\`.
fn keywords(text: &str) -> Result<Parameters, String> {
    let mut found = Parameters::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| !c.is_whitespace() && *c != '=') {
            name.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next_if_eq(&'=').is_none() {
            return if name.is_empty() && rest.peek().is_none() {
                Ok(found)
            } else {
                Err(
                    "has a word without `=`; put a value that contains spaces in single quotes"
                        .to_owned(),
                )
            };
        }
        if !is_printable(&name) {
            return Err(
                "has a parameter with no valid name; put values in single quotes".to_owned(),
            );
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        let closed = loop {
            match rest.next_if(|c| quoted || !c.is_whitespace()) {
                Some('\'') if quoted => break true,
                Some('\\') => value.extend(rest.next()),
                Some(c) => value.push(c),
                None => break !quoted,
            }
        };
        if !closed {
            return Err("has a quoted value without its closing quote".to_owned());
        }
        found.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parameters(text).unwrap().into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn a_url_is_split_and_decoded_as_libpq_does() {
        assert_eq!(
            read("postgres://u:p%40ss@h1:1,[::1]:2,h3/d%2Fb?sslmode=require&host=/run/x"),
            pairs(&[
                ("dbname", "d/b"),
                // A parameter replaces a value before the `?`.
                ("host", "/run/x"),
                ("password", "p@ss"),
                ("port", "1,2,"),
                ("sslmode", "require"),
                ("user", "u"),
            ])
        );
        assert_eq!(
            read("postgresql:///db?host=%2Frun&user=a@b"),
            pairs(&[("dbname", "db"), ("host", "/run"), ("user", "a@b")])
        );
    }

    #[test]
    fn quoted_values_of_the_keyword_form_keep_their_blanks() {
        assert_eq!(
            read(r"host = h  password = 'two  blanks \' and \\' options='-c a=b  -c c=d'"),
            pairs(&[
                ("host", "h"),
                ("options", "-c a=b  -c c=d"),
                ("password", r"two  blanks ' and \"),
            ])
        );
        assert!(parameters("").is_err());
        assert_eq!(
            read("host=h dbname=''"),
            pairs(&[("dbname", ""), ("host", "h")])
        );
    }

    #[test]
    fn a_password_in_the_wrong_place_is_never_repeated() {
        for text in [
            "mysql://u:geheim@h/db",
            "geheim",
            "postgres://u:a/geheim@h/db",
            "postgres://u:a?geheim@h/db",
            "postgres://u:a?geheim=1@h/db",
            "postgres://u:a@geheim@h/db",
            "postgres://u:geheim:9@[::1/db",
            "host=h password=two geheim",
            "host=h password='geheim",
            "host=h GeHeim=1",
        ] {
            let why = parameters(text).expect_err(text);
            assert!(!why.to_lowercase().contains("geheim"), "{text}: {why}");
        }
    }
}
