-- Forgets sessions that ended more than eight weeks before $1, and those that were withdrawn.
-- Reads session_efficiency whole: eight weeks of sessions, once per evaluation of them.
delete from session_efficiency as e
where
    e.ended_at < $1::timestamptz - interval '56 days'
    or not exists (select from charging_sessions as s where s.session_id = e.session_id)
