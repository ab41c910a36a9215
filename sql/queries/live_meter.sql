-- The newest reading of one meter.
-- Served by the unique index on meters.external_id and the primary key of meter_live_status.
-- With up to $4 earlier readings of each, after $2 and before $3, in any order: the primary key
-- (meter_id, ts) of the partitions between, backward.
select
    m.external_id,
    s.received_at,
    b.times,
    b.registers,
    s.ts,
    s.kwh_consumed_ac,
    s.kwh_register,
    s.voltage
from meters as m
inner join meter_live_status as s on m.id = s.meter_id
cross join lateral (
    select
        array_agg(e.ts) as times,
        array_agg(e.kwh_register) as registers
    from (
        select
            h.ts,
            h.kwh_register
        from meter_telemetry_history as h
        where
            h.meter_id = s.meter_id
            and h.ts < s.ts
            and h.ts > $2
            and h.ts < $3
        order by h.ts desc
        limit $4
    ) as e
) as b
where m.external_id = $1
