-- A sorted batch of the limit L1; its primary key takes each row.
COPY wattgate_limits.history (ts, kwh_consumed_ac, kwh_register, voltage, meter_id)
FROM STDIN BINARY
