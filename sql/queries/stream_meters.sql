-- The newest readings of some meters, and the short ids by which they were requested.
-- Served by the primary keys of meter_live_status and meters.
select
    m.external_id,
    s.received_at,
    s.ts,
    s.kwh_consumed_ac,
    s.kwh_register,
    s.voltage,
    s.meter_id
from meter_live_status as s
inner join meters as m on s.meter_id = m.id
where s.meter_id = any($1)
