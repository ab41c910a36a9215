-- The first $1 hours of vehicles that have marks, of a day from the earliest on.
-- Index: the primary key (hour, vehicle_id, id) of vehicle_hour_marks.
select distinct
    m.hour,
    m.vehicle_id
from vehicle_hour_marks as m
where
    m.hour >= (select min(f.hour) from vehicle_hour_marks as f)
    and m.hour < (select min(f.hour) from vehicle_hour_marks as f) + interval '1 day'
order by m.hour, m.vehicle_id
limit $1
