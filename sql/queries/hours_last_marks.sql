-- The last dirty hours.
-- Index: the primary keys (hour, meter_id, id) of meter_hour_marks and (hour, vehicle_id, id) of
-- vehicle_hour_marks, the last entry.
select
    m.hour as meter_hour,
    m.meter_id,
    v.hour as vehicle_hour,
    v.vehicle_id
from (select 1 as one) as o
left join (
    select
        hour,
        meter_id
    from meter_hour_marks
    order by hour desc, meter_id desc, id desc
    limit 1
) as m on true
left join (
    select
        hour,
        vehicle_id
    from vehicle_hour_marks
    order by hour desc, vehicle_id desc, id desc
    limit 1
) as v on true
