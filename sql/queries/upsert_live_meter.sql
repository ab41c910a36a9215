-- Index: the primary key of meter_live_status. Sorted by the caller, so that two gateways take
-- the rows in one order. Only a newer reading replaces one.
insert into meter_live_status (meter_id, ts, received_at, kwh_consumed_ac, kwh_register, voltage)
select * from unnest(
    $1::integer[], $2::timestamptz[], $3::timestamptz[], $4::float8[], $5::float8[], $6::float8[]
)
on conflict (meter_id) do update set
    ts = excluded.ts,
    received_at = excluded.received_at,
    kwh_consumed_ac = excluded.kwh_consumed_ac,
    kwh_register = excluded.kwh_register,
    voltage = excluded.voltage
where excluded.ts > meter_live_status.ts
