-- A minute of all vehicles of T7's history.
COPY vehicle_telemetry_history (
    ts, kwh_delivered_dc, kwh_register, soc, battery_temp, vehicle_id, named_meter_id, named_session_id
)
FROM STDIN BINARY
