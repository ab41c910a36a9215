-- The next readings of one meter in ($2, $3], in order of time.
-- Index: the primary key (meter_id, ts) of the partitions between $2 and $3.
select
    ts,
    kwh_consumed_ac,
    kwh_register,
    voltage
from meter_telemetry_history
where meter_id = $1 and ts > $2 and ts <= $3
order by ts
limit $4
