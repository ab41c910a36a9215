//! The main job on a server with PostgreSQL's defaults, and with settings that operators choose for other programs. The
//! results must be the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../gateway/mod.rs"]
mod gateway;
mod job;
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::gateway::{DEADLINE, Gateway, command, data_dir, ended, within};
use crate::server::{Server, as_nobody, dir_of_its_own};

/// Groups of settings, one group per run, made for the role or for the database.
const HOSTILE: [(&str, &[&str]); 3] = [
    (
        "role",
        &[
            "default_transaction_isolation = 'repeatable read'",
            "statement_timeout = '200ms'",
            "lock_timeout = '1ms'",
            "transaction_timeout = '200ms'",
            "idle_session_timeout = '1s'",
            "idle_in_transaction_session_timeout = '1s'",
            "jit = on",
            "jit_above_cost = 0",
            "jit_inline_above_cost = 0",
            "jit_optimize_above_cost = 0",
            "search_path = 'nowhere'",
            "timezone = 'Asia/Kathmandu'",
            "datestyle = 'German, DMY'",
            "intervalstyle = 'sql_standard'",
            "extra_float_digits = -15",
            "bytea_output = 'escape'",
            "standard_conforming_strings = off",
            "client_min_messages = 'debug5'",
            "exit_on_error = on",
            "work_mem = '64kB'",
        ],
    ),
    (
        "database",
        &[
            "default_transaction_isolation = 'serializable'",
            "default_transaction_deferrable = on",
            "plan_cache_mode = 'force_generic_plan'",
            "enable_indexscan = off",
            "enable_indexonlyscan = off",
            "enable_bitmapscan = off",
            "enable_nestloop = off",
            "enable_hashagg = off",
            "enable_partition_pruning = off",
            "max_parallel_workers_per_gather = 8",
            "parallel_setup_cost = 0",
            "min_parallel_table_scan_size = 0",
            "search_path = ''",
            "synchronous_commit = off",
            "quote_all_identifiers = on",
            "session_replication_role = 'replica'",
            "default_tablespace = 'nowhere'",
            "log_statement = 'all'",
            "xmloption = 'document'",
        ],
    ),
    (
        "role",
        &[
            // The operator keeps the tables in the role's own schema.
            "search_path = fleet, public",
            "default_transaction_isolation = 'serializable'",
            "transform_null_equals = on",
            "array_nulls = off",
            "backslash_quote = off",
            "escape_string_warning = off",
            "row_security = off",
            "enable_seqscan = off",
            "geqo_threshold = 2",
            "join_collapse_limit = 1",
            "random_page_cost = 1000",
            "cpu_index_tuple_cost = 1000",
            "effective_cache_size = '8kB'",
            "debug_parallel_query = on",
            "force_parallel_mode = on",
            "temp_tablespaces = ''",
            "client_encoding = 'LATIN1'",
            "idle_session_timeout = '1s'",
        ],
    ),
];

#[test]
fn answers_do_not_depend_on_settings_of_role_or_database() {
    let server = Server::start();
    server.make("usual");
    for (number, (of, settings)) in HOSTILE.iter().enumerate() {
        let name = format!("hostile{number}");
        server.make(&name);
        if settings.iter().any(|setting| setting.contains("fleet")) {
            server.sql(&name, &format!("create schema fleet authorization {name}"));
        }
        for setting in *settings {
            if !server.set(&format!("{of} {name}"), setting) {
                println!("SKIPPED: this version does not know {setting}");
            }
        }
    }
    let run = |name: String| {
        let url = Server::url(server.socket_dir(), &name);
        job::answers(&server, &name, &url)
    };
    let (run, hostile) = (&run, 0..HOSTILE.len());
    std::thread::scope(|scope| {
        let usual = scope.spawn(move || run("usual".to_owned()));
        let others: Vec<_> = hostile
            .map(|number| scope.spawn(move || run(format!("hostile{number}"))))
            .collect();
        let usual = usual.join().unwrap();
        // Of eight overlapping sessions, each of the four vehicles keeps one.
        assert_eq!(usual[0], 4);
        for (number, other) in others.into_iter().enumerate() {
            assert_eq!(other.join().unwrap(), usual, "hostile{number}");
        }
    });
    let there = "select count(*) from pg_tables where schemaname = 'fleet'";
    assert_ne!(server.sql("hostile2", there), "0");
}

#[test]
fn a_pooler_in_session_mode_serves_readings_and_queries() {
    let Some(pooler) = Pooler::find() else {
        println!("SKIPPED: pgbouncer is not installed");
        return;
    };
    let server = Server::start();
    for name in ["usual", "pooled"] {
        server.make(name);
    }
    let _pooler = pooler.start(server.socket_dir());
    let url = Server::url(server.socket_dir(), "usual");
    let usual = job::answers(&server, "usual", &url);
    let url = format!("{} port=6432", Server::url(server.socket_dir(), "pooled"));
    assert_eq!(job::answers(&server, "pooled", &url), usual);
    let data = data_dir();
    let mut check = command(data.path());
    check.args(["check", "--database-url", &url]);
    let (code, printed) = ended(check, data.path());
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn readiness_and_check_report_that_only_queries_fail() {
    let server = Server::start();
    server.make("half");
    let between = dir_of_its_own();
    refuse(server.socket_dir(), between.path(), b"wattgate reads");
    // Without encryption, so that the client's user name and application name can be read from its first bytes.
    let url = format!("{} sslmode=disable", Server::url(between.path(), "half"));
    let data = data_dir();
    let mut run = command(data.path());
    run.args(["--database-url", &url]);
    let gateway = Gateway::spawn(run, data.path());
    let reading =
        r#"{"meterId":"M","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T00:00:00Z"}"#;
    gateway.wait("a stored reading", |g| {
        g.call("POST", "/v1/ingestion/meter?ack=committed", reading)
            .0
            == 201
    });
    gateway.wait("the state of questions", |g| {
        let (status, health) = g.call("GET", "/health", "");
        status == 503 && health.contains(r#""questions":{"status":"down""#)
    });
    let mut check = command(data.path());
    check.args(["check", "--database-url", &url]);
    let (code, printed) = ended(check, data.path());
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("queries do not"), "{printed}");
    gateway.terminate();
}

/// Forwards connections to a server's socket, except those whose first bytes contain one of these words.
fn refuse(server: &Path, between: &Path, words: &'static [u8]) {
    let listener = UnixListener::bind(between.join(".s.PGSQL.5432")).unwrap();
    let server = server.join(".s.PGSQL.5432");
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut server = UnixStream::connect(&server).unwrap();
            std::thread::spawn(move || {
                let mut first = [0; 1024];
                let read = client.read(&mut first).unwrap_or(0);
                let first = &first[..read];
                if first.windows(words.len()).any(|part| part == words) {
                    return;
                }
                server.write_all(first).ok();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    std::io::copy(&mut down, &mut client).ok();
                    client.shutdown(Shutdown::Both).ok();
                });
                std::io::copy(&mut up, &mut server).ok();
                server.shutdown(Shutdown::Both).ok();
            });
        }
    });
}

/// PgBouncer in session mode, in front of a server's socket.
struct Pooler {
    program: &'static str,
}

impl Pooler {
    fn find() -> Option<Self> {
        let found = |program: &&str| {
            let version = Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .status();
            version.is_ok_and(|status| status.success())
        };
        let mut programs = ["pgbouncer", "/usr/sbin/pgbouncer"].into_iter();
        programs.find(found).map(|program| Pooler { program })
    }

    fn start(self, server: &Path) -> Running {
        let shown = server.display();
        let settings = server.join("pgbouncer.ini");
        // Its default settings, except for where it listens and which users it admits.
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host={shown} port=5432\n[pgbouncer]\npool_mode = session\n\
                 auth_type = trust\nauth_file = {shown}/users\nunix_socket_dir = {shown}\n\
                 listen_port = 6432\ndefault_pool_size = 40\n"
            ),
        )
        .unwrap();
        fs::write(server.join("users"), "\"pooled\" \"\"\n").unwrap();
        let mut program = Command::new(self.program);
        as_nobody(&mut program)
            .arg("--quiet")
            .arg(&settings)
            .stderr(fs::File::create(server.join("pgbouncer.log")).unwrap());
        let running = Running(program.spawn().unwrap());
        within(DEADLINE, "the pooler", || {
            UnixStream::connect(server.join(".s.PGSQL.6432")).is_ok()
        });
        running
    }
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
