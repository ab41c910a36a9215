-- The newest readings of some vehicles, and the short ids by which they were requested.
-- Served by the primary keys of vehicle_live_status and vehicles.
-- With up to $4 earlier readings of each, after $2 and before $3, in any order: the primary key
-- (vehicle_id, ts) of the partitions between, backward.
select
    v.external_id,
    s.received_at,
    b.times,
    b.registers,
    s.ts,
    s.kwh_delivered_dc,
    s.kwh_register,
    s.soc,
    s.battery_temp,
    s.vehicle_id
from vehicle_live_status as s
inner join vehicles as v on s.vehicle_id = v.id
cross join lateral (
    select
        array_agg(e.ts) as times,
        array_agg(e.kwh_register) as registers
    from (
        select
            h.ts,
            h.kwh_register
        from vehicle_telemetry_history as h
        where
            h.vehicle_id = s.vehicle_id
            and h.ts < s.ts
            and h.ts > $2
            and h.ts < $3
        order by h.ts desc
        limit $4
    ) as e
) as b
where s.vehicle_id = any($1)
