-- Stores rollups of vehicles.
insert into vehicle_hours (
    vehicle_id, hour, first_at, last_at, first_kwh, last_kwh, is_register, readings, energy_mwh, resets,
    suspect, power_watts, first_temp, last_temp, temperature_micro, temperature_rest
)
select *
from unnest(
    $1::integer[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::double precision[],
    $6::double precision[], $7::boolean[], $8::integer[], $9::bigint[], $10::integer[], $11::integer[],
    $12::bigint[], $13::double precision[], $14::double precision[], $15::bigint[], $16::bigint[]
)
