-- Meters that sent nothing for more than $2 seconds at $1, but did in the last week, with the longest
-- silence of the week before their newest reading (null after a single one), in seconds; without
-- those that have an alert, and those whose silence is judged already (meters $3, since $4). With the times of up
-- to $6 of their newest readings, in any order.
-- Reads meter_live_status whole; index: the primary key (meter_id, ts) of the partitions of the
-- last two weeks.
select
    s.meter_id,
    s.ts as since,
    s.ts,
    g.longest,
    false as is_done,
    u.times
from (
    select
        l.meter_id,
        l.ts
    from meter_live_status as l
    where
        l.ts < $1::timestamptz - make_interval(secs => $2::double precision)
        and l.ts > $1::timestamptz - interval '7 days'
        and not exists (
            select
            from alerts as a
            where
                a.kind = 'silent' and a.stream = 'meter'
                and a.device_id = l.meter_id and a.closed_at is null
        )
        and not exists (
            select
            from unnest($3::integer[], $4::timestamptz[]) as k (device_id, since)
            where k.device_id = l.meter_id and k.since = l.ts
        )
    order by l.ts desc
    limit $5
) as s
cross join lateral (
    select max(w.gap)::double precision as longest
    from (
        select extract(epoch from h.ts - lag(h.ts) over (order by h.ts)) as gap
        from meter_telemetry_history as h
        where
            h.meter_id = s.meter_id
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
        from meter_telemetry_history as h
        where
            h.meter_id = s.meter_id
            and h.ts <= s.ts
            and h.ts <= $1::timestamptz
            and h.ts > $1::timestamptz - interval '14 days'
        order by h.ts desc
        limit $6
    ) as e
) as u
