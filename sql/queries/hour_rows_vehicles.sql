-- The rollups of vehicles ($1) for one hour ($2), whether or not it is dirty.
-- One hour: joined with a list of both, the whole table may be read.
-- Index: the primary key (vehicle_id, hour) of vehicle_hours.
select
    vehicle_id,
    first_at,
    last_at,
    first_kwh,
    last_kwh,
    is_register,
    readings,
    energy_mwh,
    resets,
    suspect,
    power_watts,
    first_temp,
    last_temp,
    temperature_micro,
    temperature_rest
from vehicle_hours
where vehicle_id = any($1::integer[]) and hour = $2
