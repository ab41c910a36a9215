-- The newest readings of the vehicles after an id, in the order of the ids' bytes.
-- Served by the unique index on vehicles.external_id (collation "C", in its order) and the
-- primary key of vehicle_live_status.
-- With up to $5 earlier readings of each, after $3 and before $4, in any order: the primary key
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
    s.battery_temp
from vehicles as v
inner join vehicle_live_status as s on v.id = s.vehicle_id
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
            and h.ts > $3
            and h.ts < $4
        order by h.ts desc
        limit $5
    ) as e
) as b
where v.external_id > $1
order by v.external_id
limit $2
