-- The first reading of many vehicles in intervals; with $6, the first that is not a register of 0. One row per span:
-- device ($1), after ($2), up to ($3); $4 and $5 are the earliest and the latest of them, so that only the partitions
-- between are planned.
-- Index: the primary key (vehicle_id, ts) of the partitions that each span lies in.
select
    h.ts,
    h.kwh_delivered_dc,
    h.kwh_register,
    h.battery_temp,
    h.named_meter_id,
    h.named_session_id,
    d.n::integer as wish
from unnest($1::integer[], $2::timestamptz[], $3::timestamptz[])
    with ordinality as d (device, low, high, n)
cross join lateral (
    select
        r.ts,
        r.kwh_delivered_dc,
        r.kwh_register,
        r.battery_temp,
        r.named_meter_id,
        r.named_session_id
    from vehicle_telemetry_history as r
    where
        r.vehicle_id = d.device
        and r.ts > d.low
        and r.ts <= d.high
        and r.ts > $4
        and r.ts <= $5
        and (not $6::boolean or r.kwh_register is null or r.kwh_register >= 0.0000005)
    order by r.ts
    limit 1
) as h
