-- All of the meters' history: for campaigns, which are small.
select meter_id, ts, kwh_consumed_ac, voltage, -20::float8
from meter_readings
