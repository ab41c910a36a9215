-- A page of a meter's readings in ($2, $3], oldest first.
-- Index: the primary key (meter_id, ts) of the partitions between $2 and $3, one after the other
-- until the page is full.
select
    ts,
    kwh_consumed_ac,
    kwh_register,
    voltage
from meter_telemetry_history
where meter_id = $1 and ts > $2 and ts <= $3
order by ts
limit $4
