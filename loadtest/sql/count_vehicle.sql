-- How many readings of one run are stored: its devices, its range of time, and only the times that
-- lie a whole number of intervals (microseconds) after its start. Reads the partitions of that time once,
-- whatever the order of history's key.
SELECT count(*)
FROM vehicle_telemetry_history AS history
JOIN vehicles AS device ON device.id = history.vehicle_id
WHERE device.external_id LIKE $4
    AND history.ts BETWEEN $1 AND $2
    AND round(date_part('epoch', history.ts - $1) * 1e6)::bigint % $3 = 0
