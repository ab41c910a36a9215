-- The other vehicles that name a meter where a vehicle is, or a session there: one row per interval of a vehicle
-- ($1) at a meter ($2), after $3 and up to $4. $5 and $6 are the earliest and the latest of the
-- readings looked at, so that only the partitions between are planned.
-- Index: charging_sessions_meter (meter_id, started_at), vehicle_telemetry_history_named_meter,
-- vehicle_telemetry_history_named_session, of the partitions between $5 and $6.
with runs as (
    select
        r.vehicle_id,
        r.meter_id,
        r.run_start,
        r.run_end
    from unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
        as r (vehicle_id, meter_id, run_start, run_end)
)

select
    r.vehicle_id,
    r.meter_id,
    h.vehicle_id as other_id
from runs as r
inner join vehicle_telemetry_history as h
    on
        r.meter_id = h.named_meter_id
        and r.run_start < h.ts
        and r.run_end >= h.ts
        and r.vehicle_id <> h.vehicle_id
where h.ts > $5 and h.ts <= $6
union
select
    r.vehicle_id,
    r.meter_id,
    h.vehicle_id
from runs as r
inner join charging_sessions as s on r.meter_id = s.meter_id
inner join vehicle_telemetry_history as h
    on
        s.session_id = h.named_session_id
        and r.run_start < h.ts
        and r.run_end >= h.ts
        and r.vehicle_id <> h.vehicle_id
where h.ts > $5 and h.ts <= $6
