-- Index: the primary key (meter_id, ts) decides what is there already.
insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, kwh_register, voltage)
select * from unnest($1::integer[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[])
on conflict (meter_id, ts) do nothing
returning meter_id, ts
