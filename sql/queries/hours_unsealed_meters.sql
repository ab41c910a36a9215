-- Removes the sums of meters from the hour $1 on.
-- Reads meter_hours whole: once, after a clock that was ahead was mended.
delete from meter_hours
where hour >= $1
