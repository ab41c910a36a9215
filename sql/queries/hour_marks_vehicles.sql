-- The first $1 marks of vehicles after an hour ($2) and a vehicle ($3) in it, within a day of the earliest. The marks
-- are read in the order of their key before anything is counted: a statement that counts first reads all of them if the
-- table was empty when statistics were taken.
-- Index: the primary key (hour, vehicle_id, id) of vehicle_hour_marks, its first $1 entries.
select
    m.hour,
    m.vehicle_id,
    m.pass,
    m.earliest
from (
    select
        f.hour,
        f.vehicle_id,
        f.id,
        f.pass,
        f.earliest,
        min(f.hour) over () as first_hour
    from (
        select
            hour,
            vehicle_id,
            id,
            pass,
            earliest
        from vehicle_hour_marks
        where (hour, vehicle_id) > ($2, $3)
        order by hour, vehicle_id, id
        limit $1
    ) as f
) as m
where m.hour < m.first_hour + interval '1 day'
order by m.hour, m.vehicle_id, m.id
