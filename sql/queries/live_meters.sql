-- The newest readings of the meters after an id, in the order of the ids' bytes.
-- Served by the unique index on meters.external_id (collation "C", in its order) and the primary
-- key of meter_live_status.
select
    m.external_id,
    s.received_at,
    s.ts,
    s.kwh_consumed_ac,
    s.kwh_register,
    s.voltage
from meters as m
inner join meter_live_status as s on m.id = s.meter_id
where m.external_id > $1
order by m.external_id
limit $2
