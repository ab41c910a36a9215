-- Vehicles after an id, with the meter of the same id and whether they have a session.
-- Index: the primary key of vehicles, external_id of meters, charging_sessions_vehicle.
select
    v.id,
    v.external_id,
    m.id as same_id_meter,
    exists (select from charging_sessions as s where s.vehicle_id = v.id) as has_session
from vehicles as v
left join meters as m on v.external_id = m.external_id
where v.id > $1
order by v.id
limit $2
