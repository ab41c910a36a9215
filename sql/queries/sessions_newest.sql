-- Charging sessions that started before a time ($1), or at that time with a name before $2, the latest start first;
-- null filters nothing. With $6, those that are open or ended after it.
-- Index: charging_sessions_started (started_at), backward, or charging_sessions_vehicle and
-- charging_sessions_meter if a device is named.
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
    s.started_at <= $1
    and (s.started_at < $1 or n.external_id < $2)
    and ($3::integer is null or s.vehicle_id = $3)
    and ($4::integer is null or s.meter_id = $4)
    and (
        $5::boolean is null
        or $5 = (s.started_at <= now() and (s.ended_at is null or s.ended_at > now()))
    )
    and ($6::timestamptz is null or s.ended_at is null or s.ended_at > $6)
order by s.started_at desc, n.external_id desc
limit $7
