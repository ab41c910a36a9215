-- What `wattgate check` needs of a server: its version, and the rights of the user.
select
    current_setting('server_version_num')::int as version_number,
    current_setting('server_version') as version,
    current_setting('server_encoding') as encoding,
    current_user::text as user_name,
    current_database()::text as database_name,
    pg_is_in_recovery() as is_standby,
    coalesce(has_schema_privilege(current_schema(), 'create'), false) as may_create,
    (
        select pg_has_role(c.relowner, 'usage')
        from pg_class as c
        where c.oid = to_regclass('wal_checkpoints')
    ) as owns_tables
