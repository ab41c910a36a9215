-- Vehicles that sent nothing for more than $2 seconds at $1, but did in the last week, and should: in an
-- open session, or without any, or with a reading more than a quarter of an hour after their newest
-- session's end. Since when (if it came later, since the session's start), their newest
-- reading, the longest silence of the week before it, or of the session if it has two readings
-- (null if there is none), in seconds; and whether they had finished charging in the session.
-- Without those that have an alert, and those whose silence is judged already (vehicles $3, since
-- $4). With the times of up to $6 of their newest readings, in any order.
-- Reads vehicle_live_status whole; index: charging_sessions_vehicle, and the primary key
-- (vehicle_id, ts) of the partitions of the last two weeks.
select
    s.vehicle_id,
    s.since,
    s.ts,
    coalesce(g.longest_in_session, g.longest) as longest,
    coalesce(s.session_since < s.ts, false)
    and (s.soc >= 100 or coalesce(g.took_nothing, false)) as is_done,
    u.times
from (
    select
        l.vehicle_id,
        l.ts,
        l.soc,
        greatest(l.ts, c.started_at) as since,
        c.started_at as session_since
    from vehicle_live_status as l
    left join lateral (
        select
            p.started_at,
            p.ended_at
        from charging_sessions as p
        where p.vehicle_id = l.vehicle_id and p.started_at <= $1::timestamptz
        order by p.started_at desc
        limit 1
    ) as n on true
    left join lateral (
        select n.started_at
        where n.ended_at is null or n.ended_at > $1::timestamptz
    ) as c on true
    where
        greatest(l.ts, c.started_at) < $1::timestamptz - make_interval(secs => $2::double precision)
        and l.ts > $1::timestamptz - interval '7 days'
        and (
            n.started_at is null
            or c.started_at is not null
            or l.ts > n.ended_at + interval '15 minutes'
        )
        and not exists (
            select
            from alerts as a
            where
                a.kind = 'silent' and a.stream = 'vehicle'
                and a.device_id = l.vehicle_id and a.closed_at is null
        )
        and not exists (
            select
            from unnest($3::integer[], $4::timestamptz[]) as k (device_id, since)
            where k.device_id = l.vehicle_id and k.since = greatest(l.ts, c.started_at)
        )
    order by greatest(l.ts, c.started_at) desc
    limit $5
) as s
cross join lateral (
    select
        max(w.gap)::double precision as longest,
        (max(w.gap) filter (where w.before >= s.session_since))::double precision
        as longest_in_session,
        bool_or(w.energy = 0) filter (where w.ts = s.ts) as took_nothing
    from (
        select
            h.ts,
            lag(h.ts) over (order by h.ts) as before,
            extract(epoch from h.ts - lag(h.ts) over (order by h.ts)) as gap,
            coalesce(h.kwh_delivered_dc, h.kwh_register - lag(h.kwh_register) over (order by h.ts))
            as energy
        from vehicle_telemetry_history as h
        where
            h.vehicle_id = s.vehicle_id
            and h.ts <= s.ts
            and h.ts > s.ts - interval '7 days'
            and h.ts <= $1::timestamptz
            and h.ts > $1::timestamptz - interval '14 days'
    ) as w
) as g
cross join lateral (
    select array_agg(e.ts) as times
    from (
        select h.ts
        from vehicle_telemetry_history as h
        where
            h.vehicle_id = s.vehicle_id
            and h.ts <= s.ts
            and h.ts <= $1::timestamptz
            and h.ts > $1::timestamptz - interval '14 days'
            -- In a session, how often the vehicle reported before does not count.
            and (g.longest_in_session is null or h.ts >= s.session_since)
        order by h.ts desc
        limit $6
    ) as e
) as u
