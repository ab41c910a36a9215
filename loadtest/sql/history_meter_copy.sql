-- A minute of all meters of T7's history.
COPY meter_telemetry_history (ts, kwh_consumed_ac, kwh_register, voltage, meter_id)
FROM STDIN BINARY
