-- How many of these (device, time) pairs are stored. Served by the history's primary key; the
-- bounds of time let the planner leave out other partitions.
SELECT count(*)
FROM unnest($1::text[], $2::timestamptz[]) AS probe (device, ts)
JOIN meters AS device ON device.external_id = probe.device
JOIN meter_telemetry_history AS history
    ON history.meter_id = device.id AND history.ts = probe.ts
WHERE history.ts BETWEEN $3 AND $4
