-- One charging session.
-- Served by the unique index on session_names.external_id and primary keys.
select
    n.external_id as session_name,
    v.external_id as vehicle_name,
    m.external_id as meter_name,
    s.started_at,
    s.ended_at,
    s.vehicle_id,
    s.meter_id
from charging_sessions as s
inner join session_names as n on s.session_id = n.id
inner join vehicles as v on s.vehicle_id = v.id
inner join meters as m on s.meter_id = m.id
where n.external_id = $1
