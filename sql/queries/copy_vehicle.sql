copy vehicle_telemetry_history (
    ts, kwh_delivered_dc, kwh_register, soc, battery_temp, vehicle_id, named_meter_id, named_session_id
) from stdin (format binary)
