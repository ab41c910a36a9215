-- The readings of one vehicle in ($2, $3].
-- Index: the primary key (vehicle_id, ts) of the partitions between $2 and $3.
select
    ts,
    kwh_delivered_dc,
    kwh_register,
    battery_temp,
    named_meter_id,
    named_session_id
from vehicle_telemetry_history
where vehicle_id = $1 and ts > $2 and ts <= $3
order by ts
