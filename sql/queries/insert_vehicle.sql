-- Index: the primary key (vehicle_id, ts) decides what is there already.
insert into vehicle_telemetry_history (
    vehicle_id, ts, kwh_delivered_dc, kwh_register, soc, battery_temp, named_meter_id, named_session_id
)
select * from unnest(
    $1::integer[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[], $6::float8[],
    $7::integer[], $8::integer[]
)
on conflict (vehicle_id, ts) do nothing
returning vehicle_id, ts
