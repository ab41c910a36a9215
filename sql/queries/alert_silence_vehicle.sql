-- Vehicles that are silent at $1 for longer than $2 seconds, and for longer than one and a half
-- times the longest silence of the week before their newest reading; of the last week only, and
-- without an alert yet. A vehicle of a single reading has no usual interval.
-- Reads vehicle_live_status whole; index: the primary key (vehicle_id, ts) of the partitions of the
-- last two weeks.
select
    s.vehicle_id,
    extract(epoch from $1::timestamptz - s.ts)::double precision as silent,
    greatest($2::double precision, 1.5 * g.longest) as bound,
    s.ts
from (
    select
        l.vehicle_id,
        l.ts
    from vehicle_live_status as l
    where
        l.ts < $1::timestamptz - make_interval(secs => $2::double precision)
        and l.ts > $1::timestamptz - interval '7 days'
        and not exists (
            select
            from alerts as a
            where
                a.kind = 'silent' and a.stream = 'vehicle'
                and a.device_id = l.vehicle_id and a.closed_at is null
        )
    order by l.ts desc
    limit 200
) as s
cross join lateral (
    select max(w.gap)::double precision as longest
    from (
        select extract(epoch from h.ts - lag(h.ts) over (order by h.ts)) as gap
        from vehicle_telemetry_history as h
        where
            h.vehicle_id = s.vehicle_id
            and h.ts <= s.ts
            and h.ts > s.ts - interval '7 days'
            and h.ts <= $1::timestamptz
            and h.ts > $1::timestamptz - interval '14 days'
    ) as w
) as g
where extract(epoch from $1::timestamptz - s.ts) > greatest($2::double precision, 1.5 * g.longest)
    and g.longest is not null
