-- The first $1 hours of meters that have marks, of a day from the earliest on.
-- Index: the primary key (hour, meter_id, id) of meter_hour_marks.
select distinct
    m.hour,
    m.meter_id
from meter_hour_marks as m
where
    m.hour >= (select min(f.hour) from meter_hour_marks as f)
    and m.hour < (select min(f.hour) from meter_hour_marks as f) + interval '1 day'
order by m.hour, m.meter_id
limit $1
