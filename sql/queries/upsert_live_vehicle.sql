-- Index: the primary key of vehicle_live_status. Sorted by the caller, so that two gateways take
-- the rows in one order. Only a newer reading replaces one.
insert into vehicle_live_status (
    vehicle_id, ts, received_at, kwh_delivered_dc, kwh_register, soc, battery_temp
)
select * from unnest(
    $1::integer[], $2::timestamptz[], $3::timestamptz[], $4::float8[], $5::float8[], $6::float8[],
    $7::float8[]
)
on conflict (vehicle_id) do update set
    ts = excluded.ts,
    received_at = excluded.received_at,
    kwh_delivered_dc = excluded.kwh_delivered_dc,
    kwh_register = excluded.kwh_register,
    soc = excluded.soc,
    battery_temp = excluded.battery_temp
where excluded.ts > vehicle_live_status.ts
