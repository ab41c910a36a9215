-- The first dirty hours.
-- Index: the primary keys (hour, meter_id, id) of meter_hour_marks and (hour, vehicle_id, id) of
-- vehicle_hour_marks, the first entry.
select
    (select hour from meter_hour_marks order by hour, meter_id, id limit 1) as meters,
    (select hour from vehicle_hour_marks order by hour, vehicle_id, id limit 1) as vehicles
