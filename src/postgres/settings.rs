//! The settings of sessions that the gateway depends on.
//!
//! A session inherits settings from the server, the database and the role. An operator sets these for other programs
//! too, and some of them break the gateway's guarantees. So each session sets its own, in one round trip after it has
//! connected. Startup parameters (`options`) would save that round trip, but a pooler such as PgBouncer refuses them.
//!
//! These are set. Inherited values would break:
//!
//! | settings | what they break |
//! | --- | --- |
//! | isolation, deferrable | under one old snapshot, locks protect nothing: charging sessions overlap, dirty hours are missed |
//! | timeouts | sessions that wait for a lock, a reading or a query end, or never end |
//! | search path | tables are not found, or another schema's functions replace PostgreSQL's |
//! | planner switches, costs, limits | an untested plan, slower by orders of magnitude |
//! | JIT, parallel workers | compiling takes longer than running; one query uses every core |
//! | memory for sorts | 64 kB sends each sort to disk |
//! | formats of times, numbers, bytes, names | the gateway reads texts of another form |
//! | how SQL is read | `= null`, backslashes and NULL in arrays mean something else |
//! | `exit_on_error` | the first repeated reading ends the session |
//! | `row_security`, `session_replication_role` | policies and the operator's triggers act differently in one session |
//! | access method | a partition of another kind has no primary key |
//! | `synchronous_commit` | COMMIT is answered before it is durable |
//! | messages, keepalives | floods of messages; a lost client keeps its locks |
//!
//! These are inherited:
//!
//! - `default_transaction_read_only`: operators, hosting services and failover scripts set it to keep
//!   programs from writing (a full disk, an old primary). Readings wait in the log meanwhile, and readiness
//!   reports why.
//! - `synchronous_commit` other than `off`: each value makes COMMIT durable on the primary. The number of
//!   standbys is the operator's trade of speed for safety.
//! - tablespaces, memory and workers for maintenance, `deadlock_timeout`, `temp_file_limit`,
//!   prefetching: they follow the machine. They cost time, within the timeouts, and change no answer.
//! - logging, tracing, statistics and the language of messages: the gateway reads none of it.
//! - `role`: operators give tables to a group and let logins act as it.
//! - settings for vacuum, replication, XML, text search, function bodies: no statement uses them.

/// The purpose of a session. It decides how long statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Stores readings.
    Writer,
    /// Runs a query, or changes charging sessions.
    Question,
    /// Rolls up hours.
    Rollup,
    /// Looks for alerts and delivers them.
    Alerts,
    /// Makes and drops partitions.
    Maintenance,
    /// Applies migrations.
    Migration,
    /// Runs a command that an operator waits for.
    Command,
}

/// The timeouts of a session, as PostgreSQL writes them. `0` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    statement: &'static str,
    lock: &'static str,
    idle_in_transaction: &'static str,
}

impl Use {
    /// How long a statement waits for a lock.
    pub const fn lock_timeout(self) -> &'static str {
        self.limits().lock
    }

    const fn limits(self) -> Limits {
        let (statement, lock, idle_in_transaction) = match self {
            // A lock that takes longer is the environment's fault: connect again.
            Use::Writer | Use::Rollup => ("60s", "10s", "60s"),
            // A longer snapshot would keep vacuum from the live tables, which are updated all the time.
            Use::Question => ("30s", "5s", "30s"),
            Use::Alerts => ("5min", "10s", "60s"),
            Use::Maintenance => ("5min", "10s", "60s"),
            // A migration waits for another gateway's, and may build an index on all of history. The
            // caller bounds it.
            Use::Migration => ("0", "0", "60s"),
            Use::Command => ("1h", "60s", "60s"),
        };
        Limits {
            statement,
            lock,
            idle_in_transaction,
        }
    }

    /// The settings in which this use differs from all others.
    const fn own(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // A rollup that is lost in a crash is made again, because its marks are back too.
            Use::Rollup => &[("synchronous_commit", "off")],
            _ => &[],
        }
    }
}

/// The settings of every session. A server ignores those that only newer versions have.
const PINNED: &[(&str, &str)] = &[
    // After waiting for a lock, a statement must see what others have committed.
    ("default_transaction_isolation", "read committed"),
    // A serializable read-only one would wait for a safe snapshot.
    ("default_transaction_deferrable", "off"),
    // A session of the pool waits for queries, a writer for readings. From versions 14 and 17 on.
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    // A plan for known values plans and locks only the partitions that they need.
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "off"),
    // The pool bounds the cost of queries: a session and a process each.
    ("max_parallel_workers_per_gather", "0"),
    ("debug_parallel_query", "off"),
    ("force_parallel_mode", "off"),
    // As on the embedded server: memory and SSDs read randomly at nearly the same cost.
    ("random_page_cost", "1.1"),
    ("work_mem", "16MB"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("quote_all_identifiers", "off"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("escape_string_warning", "on"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    // Repeated keys and refused rows are expected; the session handles them.
    ("exit_on_error", "off"),
    ("row_security", "on"),
    ("session_replication_role", "origin"),
    ("default_table_access_method", "heap"),
    ("client_min_messages", "warning"),
    // The server drops a vanished client, even in the middle of a COPY.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15000"),
];

/// Planner settings that every session sets to PostgreSQL's own defaults. This includes all settings whose names begin
/// with `enable_` or `geqo` or end with `_cost`, even those of future versions.
const PLANNER: &[&str] = &[
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "effective_cache_size",
    "from_collapse_limit",
    "hash_mem_multiplier",
    "join_collapse_limit",
    "recursive_worktable_factor",
];

/// Sets the search path to one schema, so that no other can replace a table or one of PostgreSQL's own
/// functions, which are searched first.
///
/// The operator chooses the schema by the inherited path: the first schema that has the tables, or else
/// the first that exists, where they will be made. If the path names no schema, it is the one schema that
/// has the tables, or `public`.
const SEARCH_PATH: &str = "\
select pg_catalog.set_config('search_path', pg_catalog.quote_ident(coalesce(
    (
        select n.nspname from pg_catalog.pg_class as c
        inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
        where c.oid = pg_catalog.to_regclass('gateway_database')
    ),
    case
        when pg_catalog.current_schema() in ('pg_catalog', 'information_schema') then null
        else pg_catalog.current_schema()
    end,
    (
        select pg_catalog.min(n.nspname::text)::name from pg_catalog.pg_class as c
        inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
        where c.relname = 'gateway_database' and c.relkind in ('r', 'p')
            and pg_catalog.has_schema_privilege(n.oid, 'usage')
        having pg_catalog.count(*) = 1
    ),
    'public'
)), false)";

/// All settings of a session, as one message of several statements.
pub(super) fn settings(purpose: Use) -> String {
    let Limits {
        statement,
        lock,
        idle_in_transaction,
    } = purpose.limits();
    // A use's own settings replace those of every session.
    let own = purpose.own();
    let pinned = PINNED
        .iter()
        .filter(|(name, _)| own.iter().all(|(other, _)| name != other))
        .chain(own)
        .map(|(name, value)| format!("('{name}', '{value}')"))
        .collect::<Vec<_>>()
        .join(", ");
    let planner = PLANNER.join("', '");
    // First the settings that would slow down or end the rest: an inherited timeout of a millisecond, or
    // JIT. Inherited costs of 0 made each session take a second.
    format!(
        "set statement_timeout = '{statement}';
        set jit = off;
        select case when pg_catalog.current_setting('server_version_num')::integer >= 170000
            then pg_catalog.set_config('transaction_timeout', '0', false) end;
        set lock_timeout = '{lock}';
        set idle_in_transaction_session_timeout = '{idle_in_transaction}';
        {SEARCH_PATH};
        select pg_catalog.count(pg_catalog.set_config(s.name, coalesce(w.setting, s.boot_val), false))
        from pg_catalog.pg_settings as s
        left join (values {pinned}) as w (name, setting) on s.name = w.name
        where (
                w.name is not null or s.name in ('{planner}')
                or pg_catalog.starts_with(s.name, 'enable_') or pg_catalog.starts_with(s.name, 'geqo')
                or pg_catalog.right(s.name, 5) = '_cost'
            )
            and (s.context = 'user' or pg_catalog.has_parameter_privilege(s.name, 'set'));
        select pg_catalog.set_config('synchronous_commit', 'on', false)
        where pg_catalog.current_setting('synchronous_commit') = 'off' and {}",
        purpose != Use::Rollup
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_set_once_and_a_uses_own_wins() {
        for (at, (name, _)) in PINNED.iter().enumerate() {
            assert!(
                PINNED[..at].iter().all(|(other, _)| other != name),
                "{name}"
            );
            assert!(!PLANNER.contains(name), "{name}");
        }
        let rollup = settings(Use::Rollup);
        assert_eq!(rollup.matches("('synchronous_commit', 'off')").count(), 1);
        assert!(!settings(Use::Question).contains("('synchronous_commit', 'off')"));
    }
}
