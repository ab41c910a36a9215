-- Ends an open session.
-- Served by the unique index on session_names.external_id and the primary key of
-- charging_sessions.
update charging_sessions
set ended_at = $2
where
    session_id = (select id from session_names where external_id = $1)
    and ended_at is null
