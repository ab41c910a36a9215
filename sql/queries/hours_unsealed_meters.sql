-- Removes the rollups of meters from the hour $1 on.
-- Reads meter_hours whole: once, after a clock that was ahead was corrected.
delete from meter_hours
where hour >= $1
