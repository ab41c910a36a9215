-- The newest readings of some meters, and the short ids by which they were requested.
-- Served by the primary keys of meter_live_status and meters.
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
    s.voltage,
    s.meter_id
from meter_live_status as s
inner join meters as m on s.meter_id = m.id
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
where s.meter_id = any($1)
