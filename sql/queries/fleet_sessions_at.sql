-- The other vehicles with a session at a meter where a vehicle is: one row per interval of a vehicle ($1) at
-- a meter ($2), after $3 and up to $4.
-- Index: charging_sessions_meter (meter_id, started_at).
select distinct
    r.vehicle_id,
    r.meter_id,
    s.vehicle_id as other_id
from unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
    as r (vehicle_id, meter_id, run_start, run_end)
inner join charging_sessions as s
    on
        r.meter_id = s.meter_id
        and r.run_end > s.started_at
        and (s.ended_at is null or s.ended_at > r.run_start)
        and r.vehicle_id <> s.vehicle_id
