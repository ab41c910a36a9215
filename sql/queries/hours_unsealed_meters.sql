-- Removes the sums of meters from the hour $1 on.
-- Index: meter_hours_hour (hour).
delete from meter_hours
where hour >= $1
