-- The newest time of any stored reading. No index: the live tables have one row per device.
select greatest(
    (select max(ts) from meter_live_status),
    (select max(ts) from vehicle_live_status)
)
