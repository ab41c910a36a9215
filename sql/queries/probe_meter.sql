-- Index: the primary key (meter_id, ts) of the partitions between $3 and $4.
select h.meter_id, h.ts, h.kwh_consumed_ac, h.kwh_register, h.voltage
from unnest($1::integer[], $2::timestamptz[]) as k (id, ts)
inner join meter_telemetry_history as h on h.meter_id = k.id and h.ts = k.ts
where h.ts >= $3 and h.ts <= $4
