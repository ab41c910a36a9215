-- The number of dirty marks.
-- Index: none: the tables are all but empty, and read whole once a minute.
select
    (select count(*) from meter_hour_marks) as meters,
    (select count(*) from vehicle_hour_marks) as vehicles
