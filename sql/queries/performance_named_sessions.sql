-- The meters of the sessions that readings name, if they are known.
-- Index: the primary key of charging_sessions.
select
    session_id,
    meter_id
from charging_sessions
where session_id = any($1::integer[])
