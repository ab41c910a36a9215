-- Index: the primary key of vehicle_live_status. Sorted by the caller, so that two gateways take
-- the rows in one order. Only a newer reading replaces one.
-- The arrays are unnested side by side as rows are needed: as a function in FROM, each would first be
-- copied into a store of its own, which took a fifth of the statement's time.
insert into vehicle_live_status (
    vehicle_id, ts, received_at, kwh_delivered_dc, kwh_register, soc, battery_temp
)
select
    unnest($1::integer[]),
    unnest($2::timestamptz[]),
    unnest($3::timestamptz[]),
    unnest($4::float8[]),
    unnest($5::float8[]),
    unnest($6::float8[]),
    unnest($7::float8[])
on conflict (vehicle_id) do update set
    ts = excluded.ts,
    received_at = excluded.received_at,
    kwh_delivered_dc = excluded.kwh_delivered_dc,
    kwh_register = excluded.kwh_register,
    soc = excluded.soc,
    battery_temp = excluded.battery_temp
where excluded.ts > vehicle_live_status.ts
