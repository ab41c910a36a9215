-- Index: the primary key of quarantined_readings.
delete from quarantined_readings as q
using unnest($1::uuid[], $2::integer[], $3::bigint[], $4::integer[])
    as k (run_id, shard, position, reading_index)
where
    q.run_id = k.run_id and q.shard = k.shard
    and q.position = k.position and q.reading_index = k.reading_index
