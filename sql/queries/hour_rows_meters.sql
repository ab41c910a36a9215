-- The rollups of meters ($1) for one hour ($2), whether or not it is dirty.
-- One hour: joined with a list of both, the whole table may be read.
-- Index: the primary key (meter_id, hour) of meter_hours.
select
    meter_id,
    first_at,
    last_at,
    first_kwh,
    last_kwh,
    is_register,
    readings,
    energy_mwh,
    resets,
    suspect,
    power_watts
from meter_hours
where meter_id = any($1::integer[]) and hour = $2
