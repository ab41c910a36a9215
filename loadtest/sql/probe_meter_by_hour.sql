-- As probe_meter.sql, where history's key leads with the hour: hours since 1970, each with its end and without its
-- start.
SELECT count(*)
FROM unnest($1::text[], $2::timestamptz[]) AS probe (device, ts)
JOIN meters AS device ON device.external_id = probe.device
JOIN meter_telemetry_history AS history
    ON history.meter_id = device.id
    AND history.ts = probe.ts
    AND history.hour = ceil(extract(epoch FROM probe.ts) / 3600)::integer - 1
WHERE history.ts BETWEEN $3 AND $4
