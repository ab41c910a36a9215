//! `wattgate keys`: creates, lists and revokes API keys in the data directory.

use crate::app::AppError;
use crate::auth::bucket::RATE_MAX;
use crate::auth::key::check_text;
use crate::auth::{Fingerprint, KeyFile, KeyFileError, Record, Rights, Secret};
use crate::config::{CreateKeyArgs, DataDirArgs, KeysCommand, parse_duration};
use crate::reading::Timestamp;

/// The output of a command.
#[derive(Debug)]
pub struct Output {
    /// For stdout. For a new key, it is the key and nothing else.
    pub answer: String,
    /// For stderr.
    pub note: Option<String>,
}

/// Runs a command on the keys of a data directory. Returns once the change is on disk.
///
/// # Errors
/// [`AppError::Keys`]: nothing was changed.
pub fn run(command: &KeysCommand) -> Result<Output, AppError> {
    let now = Timestamp::now();
    let file = |args: &DataDirArgs| KeyFile::of(&args.data_dir);
    match command {
        KeysCommand::Create(args) => {
            let terms = Terms::check(args, now)?;
            Ok(create(&file(&args.data_dir), args, terms, now)?)
        }
        KeysCommand::List(data_dir) => Ok(list(&file(data_dir), now)?),
        KeysCommand::Revoke { key, data_dir } => Ok(revoke(&file(data_dir), key, now)?),
    }
}

/// The checked terms of a new key.
struct Terms {
    rights: Rights,
    certificate: Option<Fingerprint>,
    expires_at: Option<Timestamp>,
}

impl Terms {
    /// Checks the arguments, and reports everything that is wrong at once.
    fn check(args: &CreateKeyArgs, now: Timestamp) -> Result<Self, AppError> {
        let mut faults = Vec::new();
        faults.extend(check_text("--name", &args.name).err());
        let prefix = args.prefix.as_deref();
        faults.extend(prefix.and_then(|prefix| check_text("--prefix", prefix).err()));
        let out_of_range = |rate: &u32| !(1..=RATE_MAX).contains(rate);
        if let Some(rate) = args.rate.filter(out_of_range) {
            faults.push(format!(
                "--rate {rate}: must be 1 to {RATE_MAX} readings per second"
            ));
        }
        let rights = Rights::parse(&args.rights)
            .map_err(|why| faults.push(format!("--rights {}: {why}", args.rights)))
            .ok();
        let expires_at = args.expires.as_deref().and_then(|text| {
            expiry(text, now)
                .map_err(|why| faults.push(format!("--expires {text}: {why}")))
                .ok()
        });
        let certificate = args.certificate.as_deref().and_then(|file| {
            Fingerprint::of_pem_file(file)
                .map_err(|why| faults.push(format!("--certificate {why}")))
                .ok()
        });
        match rights {
            Some(rights) if faults.is_empty() => Ok(Terms {
                rights,
                certificate,
                expires_at,
            }),
            _ => Err(AppError::Arguments(faults.join("\nwattgate: "))),
        }
    }
}

fn create(
    file: &KeyFile,
    args: &CreateKeyArgs,
    checked: Terms,
    now: Timestamp,
) -> Result<Output, KeyFileError> {
    let refused = KeyFileError::Refused;
    let Terms {
        rights,
        certificate,
        expires_at,
    } = checked;
    let random =
        |error: getrandom::Error| refused(format!("the system returned no random bytes: {error}"));
    let secret = Secret::generate().map_err(random)?;
    let record = Record {
        id: secret.id(),
        name: args.name.clone(),
        sha256: secret.hash(),
        rights,
        prefix: args.prefix.clone(),
        rate: args.rate,
        certificate,
        created_at: Some(now),
        expires_at,
        revoked_at: None,
    };
    let note = format!(
        "created the key {} ({}): {}; it is shown only this once",
        record.id,
        record.name,
        terms(&record, now)
    );
    file.change(|keys| {
        let taken = |k: &Record| k.name == record.name && k.revoked_at.is_none();
        if keys.iter().any(taken) {
            let why = format!(
                "a key named {:?} is already in use; choose another --name, or revoke it",
                record.name
            );
            return Err(refused(why));
        }
        let same = |k: &&Record| k.revoked_at.is_none() && k.certificate == record.certificate;
        if let Some(other) = keys.iter().find(same).filter(|_| certificate.is_some()) {
            let why = format!(
                "the certificate already stands for the key {:?}; revoke that first",
                other.name
            );
            return Err(refused(why));
        }
        // The chance is one in four thousand million for each key.
        if keys.iter().any(|known| known.id == record.id) {
            return Err(refused("the random id is taken; try again".to_owned()));
        }
        keys.push(record);
        Ok(())
    })?;
    Ok(Output {
        answer: secret.reveal().to_owned(),
        note: Some(note),
    })
}

fn list(file: &KeyFile, now: Timestamp) -> Result<Output, KeyFileError> {
    let keys = file.read()?;
    if keys.is_empty() {
        return Ok(Output {
            answer: format!("there are no keys in {}", file.path().display()),
            note: None,
        });
    }
    let line = |key: &Record| format!("{}  {}  {}", key.id, key.name, terms(key, now));
    let lines: Vec<String> = keys.iter().map(line).collect();
    Ok(Output {
        answer: lines.join("\n"),
        note: None,
    })
}

fn revoke(file: &KeyFile, wanted: &str, now: Timestamp) -> Result<Output, KeyFileError> {
    if file.stamp()?.is_none() {
        // Changing the file would create the directory.
        let why = format!("there are no keys in {}", file.path().display());
        return Err(KeyFileError::Refused(why));
    }
    let answer = file.change(|keys| {
        // Revoked keys may have had the same name.
        let named = |key: &Record| key.name == wanted && key.revoked_at.is_none();
        let found = keys
            .iter()
            .position(|key| key.id.to_string() == wanted)
            .or_else(|| keys.iter().position(named));
        let Some(key) = found.and_then(|at| keys.get_mut(at)) else {
            let why = format!("no key in use has the id or name {wanted:?}");
            return Err(KeyFileError::Refused(why));
        };
        key.revoked_at.get_or_insert(now);
        Ok(format!("revoked the key {} ({})", key.id, key.name))
    })?;
    Ok(Output { answer, note: None })
}

/// The terms of a key as text.
fn terms(key: &Record, now: Timestamp) -> String {
    let mut terms = vec![key.rights.to_string()];
    if let Some(prefix) = &key.prefix {
        terms.push(format!("devices {prefix}…"));
    }
    if let Some(rate) = key.rate {
        terms.push(format!("{rate} readings/s"));
    }
    if let Some(certificate) = key.certificate {
        terms.push(format!("certificate {certificate}"));
    }
    if let Some(at) = key.expires_at {
        let word = if at <= now { "expired" } else { "expires" };
        terms.push(format!("{word} {at}"));
    }
    if let Some(at) = key.revoked_at {
        terms.push(format!("revoked {at}"));
    }
    terms.join(", ")
}

/// Reads a time, or a span from now.
fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let at = match parse_duration(text) {
        Ok(span) => {
            let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
            now.plus_micros(micros)
        }
        Err(_) => text
            .parse::<jiff::Timestamp>()
            .map(|at| Timestamp::from_micros(at.as_microsecond()))
            .map_err(|_| {
                "must be a time such as 2027-01-01T00:00:00Z, or a duration such as 90d".to_owned()
            })?,
    };
    if at <= now {
        return Err("must be in the future".to_owned());
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::auth::Keyring;

    fn of(dir: &Path) -> DataDirArgs {
        DataDirArgs {
            data_dir: dir.to_owned(),
        }
    }

    fn args(dir: &Path, name: &str) -> CreateKeyArgs {
        CreateKeyArgs {
            data_dir: of(dir),
            name: name.to_owned(),
            rights: "ingest,read".to_owned(),
            prefix: Some("VEH-".to_owned()),
            rate: Some(100),
            certificate: None,
            expires: Some("90d".to_owned()),
        }
    }

    #[test]
    fn a_key_is_printed_once_and_its_secret_is_nowhere_after_that() {
        let dir = tempfile::tempdir().unwrap();
        let made = run(&KeysCommand::Create(args(dir.path(), "fleet"))).unwrap();
        let key = made.answer;
        let ring = Keyring::open(dir.path()).unwrap();
        assert!(ring.find(key.as_bytes(), Timestamp::now()).is_some());
        let secret = key.rsplit('_').next().unwrap();
        let listed = run(&KeysCommand::List(of(dir.path()))).unwrap().answer;
        assert!(
            listed.contains("fleet") && listed.contains("100 readings/s"),
            "{listed}"
        );
        let kept = std::fs::read_to_string(ring.path()).unwrap();
        for text in [listed, kept, made.note.unwrap()] {
            assert!(!text.contains(secret));
        }
    }

    #[test]
    fn a_name_belongs_to_one_key_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let create = KeysCommand::Create(args(dir.path(), "fleet"));
        let revoke = |key: &str| {
            run(&KeysCommand::Revoke {
                key: key.to_owned(),
                data_dir: of(dir.path()),
            })
        };
        let first = run(&create).unwrap().answer;
        assert!(run(&create).is_err());
        assert!(revoke("fleet").is_ok());
        assert!(revoke("fleet").is_err());
        let second = run(&create).unwrap().answer;
        let ring = Keyring::open(dir.path()).unwrap();
        let opens = |key: &str| ring.find(key.as_bytes(), Timestamp::now()).is_some();
        assert!(!opens(&first) && opens(&second));
        let id = second.split('_').nth(1).unwrap();
        assert!(revoke(id).is_ok());
        ring.refresh().unwrap();
        assert!(!opens(&second));
    }

    #[test]
    fn revoking_a_key_creates_no_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mistyped = dir.path().join("mistyped");
        let revoke = KeysCommand::Revoke {
            key: "fleet".to_owned(),
            data_dir: of(&mistyped),
        };
        assert!(run(&revoke).is_err() && !mistyped.exists());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wrong: [fn(&mut CreateKeyArgs); 7] = [
            |a| a.name = String::new(),
            |a| a.rights = "write".to_owned(),
            |a| a.prefix = Some("\n".to_owned()),
            |a| a.rate = Some(0),
            |a| a.expires = Some("soon".to_owned()),
            |a| a.expires = Some("2020-01-01T00:00:00Z".to_owned()),
            |a| a.expires = Some("0s".to_owned()),
        ];
        for spoil in wrong {
            let mut args = args(dir.path(), "fleet");
            spoil(&mut args);
            let result = run(&KeysCommand::Create(args.clone()));
            let code = result.err().map(|error| error.exit_code());
            assert_eq!(code, Some(2), "{args:?}");
        }
        let mut all = args(dir.path(), "fleet");
        wrong.iter().take(5).for_each(|spoil| spoil(&mut all));
        let result = run(&KeysCommand::Create(all)).unwrap_err().to_string();
        assert_eq!(result.lines().count(), 5, "{result}");
        assert!(KeyFile::of(dir.path()).read().unwrap().is_empty());
    }
}
