copy meter_telemetry_history (ts, kwh_consumed_ac, kwh_register, voltage, meter_id)
from stdin (format binary)
