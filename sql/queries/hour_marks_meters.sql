-- The first $1 marks of meters after an hour ($2) and a meter ($3) in it, within a day of the earliest. The marks are
-- read in the order of their key before anything is counted: a statement that counts first reads all of them if the
-- table was empty when statistics were taken.
-- Index: the primary key (hour, meter_id, id) of meter_hour_marks, its first $1 entries.
select
    m.hour,
    m.meter_id,
    m.pass,
    m.earliest
from (
    select
        f.hour,
        f.meter_id,
        f.id,
        f.pass,
        f.earliest,
        min(f.hour) over () as first_hour
    from (
        select
            hour,
            meter_id,
            id,
            pass,
            earliest
        from meter_hour_marks
        where (hour, meter_id) > ($2, $3)
        order by hour, meter_id, id
        limit $1
    ) as f
) as m
where m.hour < m.first_hour + interval '1 day'
order by m.hour, m.meter_id, m.id
