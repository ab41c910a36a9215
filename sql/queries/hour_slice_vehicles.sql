-- The next $7 readings of vehicles in some hours, vehicle by vehicle from $1 on, each in order of time: after $3 and up to
-- $4, those of vehicle $1 after $2. A vehicle without any has one row without a time.
-- The vehicles are those up to $8 with readings from $5 to before $6. The partitions between hold nothing else, so that each step
-- from one vehicle to the next reads one entry, whatever the hours hold.
-- Index: the primary key (vehicle_id, ts) of those partitions, twice for each vehicle: to find it, and to read it.
with recursive devices as (
    (
        select f.vehicle_id as device
        from vehicle_telemetry_history as f
        where f.vehicle_id >= $1::integer and f.vehicle_id <= $8::integer and f.ts >= $5 and f.ts < $6
        order by f.vehicle_id
        limit 1
    )
    union all
    select
        (
            select n.vehicle_id
            from vehicle_telemetry_history as n
            where n.vehicle_id > d.device and n.vehicle_id <= $8 and n.ts >= $5 and n.ts < $6
            order by n.vehicle_id
            limit 1
        ) as device
    from devices as d
    where d.device is not null
)

select
    d.device,
    h.ts,
    h.kwh_delivered_dc,
    h.kwh_register,
    h.battery_temp,
    h.named_meter_id,
    h.named_session_id
from devices as d
left join lateral (
    select
        r.ts,
        r.kwh_delivered_dc,
        r.kwh_register,
        r.battery_temp,
        r.named_meter_id,
        r.named_session_id
    from vehicle_telemetry_history as r
    where
        r.vehicle_id = d.device
        and r.ts > case when d.device = $1::integer then $2::timestamptz else $3::timestamptz end
        and r.ts > $3::timestamptz
        and r.ts <= $4
    order by r.ts
) as h on true
where d.device is not null
limit $7
