-- How many readings of one run are stored: its devices, its range of time, and only the times that
-- lie a whole number of intervals (microseconds) after its start. Served by the history's primary
-- key, device by device.
SELECT coalesce(sum(stored.readings), 0)::bigint
FROM meters AS device
CROSS JOIN LATERAL (
    SELECT count(*) AS readings
    FROM meter_telemetry_history AS history
    WHERE history.meter_id = device.id
        AND history.ts BETWEEN $1 AND $2
        AND round(date_part('epoch', history.ts - $1) * 1e6)::bigint % $3 = 0
) AS stored
WHERE device.external_id LIKE $4
