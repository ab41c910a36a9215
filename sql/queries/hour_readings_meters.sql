-- The first $6 readings of many meters in intervals, interval by interval, each in order of time.
-- One row per span: device ($1), after ($2), up to ($3); $4 and $5 are the earliest and the latest of
-- them, so that only the partitions between are planned.
-- Index: the primary key (meter_id, ts) of the partitions that each span lies in.
select
    d.n::integer as wish,
    h.ts,
    h.kwh_consumed_ac,
    h.kwh_register
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
    order by r.ts
) as h
limit $6
