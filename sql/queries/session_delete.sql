-- Removes a session; its name stays, because readings may have named it.
-- Served by the unique index on session_names.external_id and the primary key of
-- charging_sessions.
delete from charging_sessions
where session_id = (select id from session_names where external_id = $1)
