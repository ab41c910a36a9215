-- Removes the sums of vehicles from the hour $1 on.
-- Index: vehicle_hours_hour (hour).
delete from vehicle_hours
where hour >= $1
