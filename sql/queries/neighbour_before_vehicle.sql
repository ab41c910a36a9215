-- The last reading of one vehicle in ($2, $3]; with $4, the last that is no register of 0.
-- Index: the primary key (vehicle_id, ts), backward, of the partitions between $2 and $3.
select
    ts,
    kwh_delivered_dc,
    kwh_register,
    battery_temp,
    named_meter_id,
    named_session_id
from vehicle_telemetry_history
where
    vehicle_id = $1 and ts > $2 and ts <= $3
    and (not $4::boolean or kwh_register is null or kwh_register >= 0.0000005)
order by ts desc
limit 1
