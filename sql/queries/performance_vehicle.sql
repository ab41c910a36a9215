-- A vehicle, whether it has a session, and the meter of the same id.
-- Index: external_id of vehicles and meters; charging_sessions_vehicle (vehicle_id, started_at).
select
    v.id,
    exists (select from charging_sessions as s where s.vehicle_id = v.id) as has_session,
    m.id as same_id_meter
from vehicles as v
left join meters as m on m.external_id = v.external_id
where v.external_id = $1
