-- Which of some alerts ($1) are muted beyond $2.
-- Index: the primary key of alerts, the unique key of alert_mutes.
select a.id
from alerts as a
where
    a.id = any($1::bigint[])
    and exists (
        select
        from alert_mutes as u
        where
            u.stream = a.stream and u.device_id = a.device_id
            and (u.kind is null or u.kind = a.kind)
            and u.muted_until > $2::timestamptz
    )
