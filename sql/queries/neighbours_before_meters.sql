-- The last reading of many meters in intervals; with $6, the last that is not a register of 0. One row per span: device
-- ($1), after ($2), up to ($3); $4 and $5 are the earliest and the latest of them, so that only the partitions between
-- are planned.
-- Index: the primary key (meter_id, ts), backward, of the partitions that each span lies in.
select
    h.ts,
    h.kwh_consumed_ac,
    h.kwh_register,
    d.n::integer as wish
from unnest($1::integer[], $2::timestamptz[], $3::timestamptz[])
    with ordinality as d (device, low, high, n)
cross join lateral (
    select
        r.ts,
        r.kwh_consumed_ac,
        r.kwh_register
    from meter_telemetry_history as r
    where
        r.meter_id = d.device
        and r.ts > d.low
        and r.ts <= d.high
        and r.ts > $4
        and r.ts <= $5
        and (not $6::boolean or r.kwh_register is null or r.kwh_register >= 0.0000005)
    order by r.ts desc
    limit 1
) as h
