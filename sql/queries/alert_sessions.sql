-- Sessions that ended in the four weeks before $1, a quarter of an hour ago at least, whose
-- efficiency is not computed yet, or was within a day of their end: late readings may have arrived since.
-- Index: charging_sessions_ended, the primary keys of session_efficiency and vehicles.
select
    s.session_id,
    s.vehicle_id,
    v.external_id,
    s.started_at,
    s.ended_at
from charging_sessions as s
inner join vehicles as v on s.vehicle_id = v.id
left join session_efficiency as e on s.session_id = e.session_id
where
    s.ended_at > $1::timestamptz - interval '28 days'
    and s.ended_at <= $1::timestamptz - interval '15 minutes'
    and (
        e.session_id is null
        or (
            e.computed_at < s.ended_at + interval '1 day'
            and $1::timestamptz >= s.ended_at + interval '1 day'
        )
        or e.ended_at <> s.ended_at
    )
order by s.ended_at desc
limit $2
