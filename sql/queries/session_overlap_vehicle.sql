-- A session of a vehicle that overlaps ($2, $3], except one; a null end is open.
-- Served by charging_sessions_vehicle (vehicle_id, started_at), and primary keys.
select
    n.external_id as session_name,
    v.external_id as vehicle_name,
    m.external_id as meter_name
from charging_sessions as s
inner join session_names as n on s.session_id = n.id
inner join vehicles as v on s.vehicle_id = v.id
inner join meters as m on s.meter_id = m.id
where
    s.vehicle_id = $1
    and s.started_at < coalesce($3::timestamptz, 'infinity')
    and coalesce(s.ended_at, 'infinity') > $2
    and n.external_id <> $4
limit 1
