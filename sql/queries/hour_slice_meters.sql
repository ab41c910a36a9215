-- The next $7 readings of meters in some hours, meter by meter from $1 on, each in order of time: after $3 and up to
-- $4, those of meter $1 after $2. A meter without any has one row without a time.
-- The meters are those up to $8 with readings from $5 to before $6. The partitions between hold nothing else, so that each step
-- from one meter to the next reads one entry, whatever the hours hold.
-- Index: the primary key (meter_id, ts) of those partitions, twice for each meter: to find it, and to read it.
with recursive devices as (
    (
        select f.meter_id as device
        from meter_telemetry_history as f
        where f.meter_id >= $1::integer and f.meter_id <= $8::integer and f.ts >= $5 and f.ts < $6
        order by f.meter_id
        limit 1
    )
    union all
    select
        (
            select n.meter_id
            from meter_telemetry_history as n
            where n.meter_id > d.device and n.meter_id <= $8 and n.ts >= $5 and n.ts < $6
            order by n.meter_id
            limit 1
        ) as device
    from devices as d
    where d.device is not null
)

select
    d.device,
    h.ts,
    h.kwh_consumed_ac,
    h.kwh_register
from devices as d
left join lateral (
    select
        r.ts,
        r.kwh_consumed_ac,
        r.kwh_register
    from meter_telemetry_history as r
    where
        r.meter_id = d.device
        and r.ts > case when d.device = $1::integer then $2::timestamptz else $3::timestamptz end
        and r.ts > $3::timestamptz
        and r.ts <= $4
    order by r.ts
) as h on true
where d.device is not null
limit $7
