-- The sessions of some vehicles that overlap ($2, $3].
-- Index: charging_sessions_vehicle (vehicle_id, started_at).
select
    vehicle_id,
    session_id,
    meter_id,
    started_at,
    ended_at
from charging_sessions
where
    vehicle_id = any($1::integer[])
    and started_at < $3
    and (ended_at is null or ended_at > $2)
