-- Charging sessions after a name, in the order of the names' bytes; null filters nothing.
-- Served by the unique index on session_names.external_id (collation "C", in its order), or by
-- charging_sessions_vehicle and charging_sessions_meter if a device is named.
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
where
    n.external_id > $1
    and ($2::integer is null or s.vehicle_id = $2)
    and ($3::integer is null or s.meter_id = $3)
    and (
        $4::boolean is null
        or $4 = (s.started_at <= now() and (s.ended_at is null or s.ended_at > now()))
    )
order by n.external_id
limit $5
