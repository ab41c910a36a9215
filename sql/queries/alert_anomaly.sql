-- Each vehicle's newest judged session beside the median of its others in the four weeks before
-- it, their median absolute deviation, and how many they are; of sessions that ended in the week
-- before $1.
-- Index: session_efficiency_vehicle (vehicle_id, ended_at).
with newest as (
    select distinct on (e.vehicle_id)
        e.vehicle_id,
        e.session_id,
        e.ended_at,
        e.efficiency
    from session_efficiency as e
    where e.efficiency is not null and e.ended_at > $1::timestamptz - interval '7 days'
    order by e.vehicle_id, e.ended_at desc
)

select
    n.vehicle_id,
    n.efficiency,
    m.median,
    d.deviation,
    m.sessions,
    n.ended_at
from newest as n
cross join lateral (
    select
        percentile_cont(0.5) within group (order by e.efficiency) as median,
        count(*) as sessions
    from session_efficiency as e
    where
        e.vehicle_id = n.vehicle_id and e.efficiency is not null
        and e.ended_at < n.ended_at and e.ended_at > n.ended_at - interval '28 days'
) as m
cross join lateral (
    select percentile_cont(0.5) within group (order by abs(e.efficiency - m.median)) as deviation
    from session_efficiency as e
    where
        e.vehicle_id = n.vehicle_id and e.efficiency is not null
        and e.ended_at < n.ended_at and e.ended_at > n.ended_at - interval '28 days'
) as d
where m.sessions > 0
