-- The other vehicles ($2) that are at a meter ($1) in one of the intervals ($3, $4]: by a session
-- there, or by a reading up to 15 minutes later that names it or a session there. $5 and $6 are
-- the earliest and the latest of the readings looked at.
-- Index: charging_sessions_meter (meter_id, started_at), vehicle_telemetry_history_named_meter,
-- vehicle_telemetry_history_named_session, of the partitions between $5 and $6.
with runs as (
    select
        r.run_start,
        r.run_end
    from unnest($3::timestamptz[], $4::timestamptz[]) as r (run_start, run_end)
)

select s.vehicle_id
from runs as r
inner join charging_sessions as s
    on
        s.meter_id = $1
        and s.started_at < r.run_end
        and (s.ended_at is null or s.ended_at > r.run_start)
where s.vehicle_id <> $2
union
select h.vehicle_id
from runs as r
inner join vehicle_telemetry_history as h
    on
        h.named_meter_id = $1
        and h.ts > r.run_start
        and h.ts <= r.run_end + interval '15 minutes'
where h.vehicle_id <> $2 and h.ts > $5 and h.ts <= $6
union
select h.vehicle_id
from charging_sessions as s
inner join vehicle_telemetry_history as h on h.named_session_id = s.session_id
inner join runs as r on h.ts > r.run_start and h.ts <= r.run_end + interval '15 minutes'
where s.meter_id = $1 and h.vehicle_id <> $2 and h.ts > $5 and h.ts <= $6
