-- Whether any two sessions at a meter overlap: a session begins before all earlier ones have ended.
-- Served by charging_sessions_meter (meter_id, started_at), in its order.
select 1
from (
    select
        started_at,
        max(coalesce(ended_at, 'infinity')) over (
            order by started_at, session_id
            rows between unbounded preceding and 1 preceding
        ) as reached
    from charging_sessions
    where meter_id = $1
) as s
where s.started_at < s.reached
limit 1
