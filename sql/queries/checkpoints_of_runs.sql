-- Index: the primary key of wal_checkpoints. How far each shard of some runs is stored, and how many of its
-- readings are lost.
select
    run_id, shard, position,
    meter_readings, vehicle_readings,
    meter_gap, vehicle_gap
from wal_checkpoints
where run_id = any($1)
