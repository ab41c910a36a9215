-- Charging sessions that are open, as sessions_newest lists them: those that started before a time ($1), or then
-- with a name before another ($2), the latest start first; null filters nothing.
-- Index: charging_sessions_ended, whose nulls are the sessions without an end. All of these are read and sorted: there
-- are at most as many as vehicles, since those of one vehicle do not overlap.
select
    n.external_id as session_name,
    v.external_id as vehicle_name,
    m.external_id as meter_name,
    s.started_at,
    s.ended_at,
    s.vehicle_id,
    s.meter_id
from (
    select
        o.session_id,
        o.started_at,
        o.ended_at,
        o.vehicle_id,
        o.meter_id
    from charging_sessions as o
    where o.ended_at is null and o.started_at <= now()
    union all
    select
        e.session_id,
        e.started_at,
        e.ended_at,
        e.vehicle_id,
        e.meter_id
    from charging_sessions as e
    where e.ended_at > now() and e.started_at <= now()
) as s
inner join session_names as n on s.session_id = n.id
inner join vehicles as v on s.vehicle_id = v.id
inner join meters as m on s.meter_id = m.id
where
    s.started_at <= $1
    and (s.started_at < $1 or n.external_id < $2)
    and ($3::integer is null or s.vehicle_id = $3)
    and ($4::integer is null or s.meter_id = $4)
    and ($5::timestamptz is null or s.ended_at is null or s.ended_at > $5)
order by s.started_at desc, n.external_id desc
limit $6
