-- All of the vehicles' history: for campaigns, which are small.
select vehicle_id, ts, kwh_delivered_dc, soc, battery_temp
from vehicle_readings
