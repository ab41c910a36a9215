-- Index: the primary key of quarantined_readings. Which of some readings are still in quarantine. They stay there until
-- the transaction ends.
select q.run_id, q.shard, q.position, q.reading_index
from quarantined_readings as q
inner join unnest($1::uuid[], $2::integer[], $3::bigint[], $4::integer[])
    as k (run_id, shard, position, reading_index)
    using (run_id, shard, position, reading_index)
for update of q
