-- What history holds under some keys: devices ($1) and times ($2); $3 and $4 are the earliest and the latest of them,
-- so that only the partitions between are planned. Grouping by the key changes no row, but makes PostgreSQL look up
-- each key by itself. For a plain join PostgreSQL chooses a plan by the number of rows that it expects between $3 and
-- $4. If the newest readings are beyond its statistics it expects one row, and compares every key with every row of the
-- partition.
-- Index: the primary key (meter_id, ts) of the partitions between $3 and $4.
select h.meter_id, h.ts, h.kwh_consumed_ac, h.kwh_register, h.voltage
from unnest($1::integer[], $2::timestamptz[]) as k (id, ts)
cross join lateral (
    select r.meter_id, r.ts, r.kwh_consumed_ac, r.kwh_register, r.voltage
    from meter_telemetry_history as r
    where r.meter_id = k.id and r.ts = k.ts and r.ts >= $3 and r.ts <= $4
    group by r.meter_id, r.ts
) as h
