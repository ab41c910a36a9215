-- Rows of history, rows that the checkpoints say were stored, and readings set aside: one
-- statement, and so one moment. Reads all of history: for campaigns, which are small.
select
    (select count(*) from meter_telemetry_history)
    + (select count(*) from vehicle_telemetry_history),
    (select coalesce(sum(meter_stored + vehicle_stored), 0)::bigint from wal_checkpoints),
    (select count(*) from quarantined_readings)
