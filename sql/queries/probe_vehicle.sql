-- Index: the primary key (vehicle_id, ts) of the partitions between $3 and $4.
select
    h.vehicle_id, h.ts, h.kwh_delivered_dc, h.kwh_register, h.soc, h.battery_temp,
    h.named_meter_id, h.named_session_id
from unnest($1::integer[], $2::timestamptz[]) as k (id, ts)
inner join vehicle_telemetry_history as h on h.vehicle_id = k.id and h.ts = k.ts
where h.ts >= $3 and h.ts <= $4
