//! Tests of the guard against two primaries.

use super::*;

fn server(system: i64, timeline: u32) -> Server {
    Server { system, timeline }
}

fn open(directory: &Path, keeping: Keeping, bound: Option<Uuid>) -> Arc<Servers> {
    Arc::new(Servers::load(directory, keeping, Arc::new(move || bound)).unwrap())
}

fn enter(servers: &Arc<Servers>, found: Server) -> (Admission, Place) {
    let place = Place::new(servers);
    let entry = Entry {
        place: Some(&place),
        follows: false,
    };
    (servers.admit("h", found, entry), place)
}

#[tokio::test]
async fn a_move_ends_older_sessions_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let servers = open(directory.path(), Keeping::Writes, None);
    let (admission, old) = enter(&servers, server(7, 1));
    assert!(matches!(admission, Admission::Granted));
    let lost = old.lost();
    assert_eq!(old.while_current(|| 1), Some(1));
    let (_, new) = enter(&servers, server(7, 2));
    lost.await;
    assert_eq!(old.while_current(|| 1), None);
    assert_eq!(new.while_current(|| 1), Some(1));
    let again = open(directory.path(), Keeping::Reads, None);
    for servers in [servers, again] {
        let (admission, _) = enter(&servers, server(7, 1));
        assert!(matches!(admission, Admission::Refused(_)));
        assert_eq!(servers.report().timeline, Some(2));
        assert_eq!(servers.report().refused.len(), 1);
        servers.forget_refusal("h");
        assert_eq!(servers.report().refused.len(), 0);
    }
}

#[test]
fn an_operator_returns_to_a_refused_server() {
    let directory = tempfile::tempdir().unwrap();
    let servers = open(directory.path(), Keeping::Writes, None);
    let (_, session) = enter(&servers, server(7, 5));
    adopt(directory.path(), server(7, 2)).unwrap();
    let (admission, _) = enter(&servers, server(7, 2));
    assert!(matches!(admission, Admission::Granted));
    assert_eq!(session.while_current(|| 1), None);
}

#[test]
fn only_a_gateway_records_moves() {
    let directory = tempfile::tempdir().unwrap();
    let command = open(directory.path(), Keeping::Reads, None);
    enter(&command, server(7, 5));
    assert_eq!(command.current(), Some(server(7, 5)));
    let gateway = open(directory.path(), Keeping::Writes, None);
    assert_eq!(gateway.current(), None);
}

#[test]
fn another_cluster_needs_the_database_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let servers = open(directory.path(), Keeping::Writes, Some(own));
    let (admission, _) = enter(&servers, server(7, 5));
    assert!(matches!(admission, Admission::OtherCluster));
    let entry = Entry {
        place: None,
        follows: true,
    };
    servers.admit("h", server(7, 5), entry);
    let (admission, _) = enter(&servers, server(8, 1));
    assert!(matches!(admission, Admission::OtherCluster));
    assert_eq!(servers.bound_to_other(Some(own)), None);
    assert_eq!(servers.bound_to_other(Some(other)), Some(own));
    assert_eq!(servers.bound_to_other(None), Some(own));
    let entry = Entry {
        place: None,
        follows: true,
    };
    assert!(matches!(
        servers.admit("h", server(8, 1), entry),
        Admission::Granted
    ));
    let (admission, _) = enter(&servers, server(7, 6));
    assert!(matches!(admission, Admission::Refused(_)));
}

#[test]
fn a_move_that_was_not_written_is_not_an_operators_change() {
    let directory = tempfile::tempdir().unwrap();
    let servers = open(directory.path(), Keeping::Writes, None);
    enter(&servers, server(7, 1));
    // No file can be written there.
    let reserved = directory.path().join("server.new");
    std::fs::remove_file(&reserved).unwrap();
    std::fs::create_dir(&reserved).unwrap();
    let (admission, new) = enter(&servers, server(7, 2));
    assert!(matches!(admission, Admission::Granted));
    let read = || LineageFile::new(directory.path()).read().unwrap().current;
    assert_eq!(read(), Some(server(7, 1)));
    for _ in 0..2 {
        let (admission, _) = enter(&servers, server(7, 1));
        assert!(matches!(admission, Admission::Refused(_)));
    }
    assert_eq!(new.while_current(|| 1), Some(1));
    std::fs::remove_dir(&reserved).unwrap();
    servers.keep();
    assert_eq!(read(), Some(server(7, 2)));
    // Afterwards an operator's change counts again.
    adopt(directory.path(), server(7, 1)).unwrap();
    let (admission, _) = enter(&servers, server(7, 1));
    assert!(matches!(admission, Admission::Granted));
    assert_eq!(new.while_current(|| 1), None);
}

#[test]
fn a_hiding_server_is_refused_once_another_was_seen() {
    let directory = tempfile::tempdir().unwrap();
    let servers = open(directory.path(), Keeping::Writes, None);
    let hidden = |host: &str| {
        let place = Place::new(&servers);
        let admission = servers.admit_hidden(host, "permission denied", Some(&place));
        matches!(admission, Admission::Granted)
    };
    assert!(hidden("h") && servers.uses_hidden());
    enter(&servers, server(7, 1));
    assert!(!hidden("h") && !servers.uses_hidden());
    // A check of the server does not clear the refusal.
    let looked = servers.admit_hidden("h", "permission denied", None);
    assert!(matches!(looked, Admission::Refused(_)));
    let refused = servers.report().refused;
    assert!(refused[0].contains("grant execute"), "{refused:?}");
    assert!(refused[0].contains("wal adopt"), "{refused:?}");
    adopt_hidden(directory.path()).unwrap();
    assert!(hidden("h") && servers.uses_hidden());
    assert_eq!(servers.report(), ServersReport::default());
}

#[tokio::test]
async fn a_move_ends_old_sessions_before_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let servers = open(directory.path(), Keeping::Writes, None);
    let (_, old) = enter(&servers, server(7, 1));
    let calls = Arc::new(AtomicU64::new(0));
    let called = Arc::clone(&calls);
    servers.on_move(Box::new(move || {
        called.fetch_add(1, Ordering::Relaxed);
    }));
    servers.begin_move(None);
    old.lost().await;
    assert_eq!(old.while_current(|| 1), None);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let place = Place::new(&servers);
    assert!(!servers.admit_current("h", server(7, 1), &place));
    let moved = Lineage::default().moved_to(server(7, 2));
    servers.end_move(moved, None);
    assert!(servers.admit_current("h", server(7, 2), &place));
    assert_eq!(place.while_current(|| 1), Some(1));
}

#[test]
fn a_refusal_that_is_not_repeated_is_forgotten() {
    let servers = Arc::new(Servers::default());
    enter(&servers, server(7, 2));
    enter(&servers, server(7, 1));
    assert_eq!(servers.report().refused.len(), 1);
    for (_, found) in servers.write().refused.values_mut() {
        *found = found.checked_sub(REFUSED_FOR).unwrap();
    }
    assert_eq!(servers.report().refused.len(), 0);
}

#[test]
fn a_repaired_log_keeps_the_record_of_servers() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_servers(from.path(), into.path()).unwrap();
    assert!(!LineageFile::new(into.path()).exists());
    adopt(from.path(), server(7, 3)).unwrap();
    copy_servers(from.path(), into.path()).unwrap();
    let servers = open(into.path(), Keeping::Reads, None);
    assert_eq!(servers.current(), Some(server(7, 3)));
}
