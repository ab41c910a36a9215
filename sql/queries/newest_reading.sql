-- The newest time that a stored reading has.
-- No index: the live tables have a row a device.
select greatest(
    (select max(ts) from meter_live_status),
    (select max(ts) from vehicle_live_status)
)
