-- The rolled-up hours of some meters ($1) that start from $2 to $3, except dirty ones. A row outside the
-- built hours is not valid: later readings of an hour beyond the watermark leave no mark.
-- Index: the primary keys (meter_id, hour) of meter_hours, a range of it per device, and
-- (hour, meter_id, id) of meter_hour_marks, twice.
-- The marks pass through arrays: PostgreSQL expects few rows from an array, and hashes them. If it
-- expects many rows, as after a long outage, it would compare each hour with each mark.
select
    h.meter_id,
    h.hour,
    h.first_at,
    h.last_at,
    h.first_kwh,
    h.last_kwh,
    h.is_register,
    h.readings,
    h.energy_mwh,
    h.resets,
    h.suspect,
    h.power_watts
from unnest($1::integer[]) as d (device)
cross join lateral (
    select s.*
    from meter_hours as s
    where s.meter_id = d.device and s.hour >= $2 and s.hour <= $3
    offset 0
) as h
where
    h.hour >= (select p.built_from from hours_progress as p)
    and h.hour < (select least(p.built_to, p.sealed_to) from hours_progress as p)
    and (h.hour, h.meter_id) not in (
        select
            k.hour,
            k.device
        from unnest(
            array(
                select m.hour
                from meter_hour_marks as m
                where m.hour >= $2 and m.hour <= $3 and m.meter_id = any($1::integer[])
                order by m.hour, m.meter_id, m.id
            ),
            array(
                select m.meter_id
                from meter_hour_marks as m
                where m.hour >= $2 and m.hour <= $3 and m.meter_id = any($1::integer[])
                order by m.hour, m.meter_id, m.id
            )
        ) as k (hour, device)
    )
