-- The devices and times of at most $3 readings of vehicles from $1 to before $2, the bounds of a partition.
-- Without an order: it stops after $3 rows, and each row of the partition is one of them.
-- Index: none, or any of the partition's.
select
    vehicle_id,
    ts
from vehicle_telemetry_history
where ts >= $1 and ts < $2
limit $3
