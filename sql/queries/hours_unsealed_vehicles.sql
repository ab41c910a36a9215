-- Removes the rollups of vehicles from the hour $1 on.
-- Reads vehicle_hours whole: once, after a clock that was ahead was corrected.
delete from vehicle_hours
where hour >= $1
