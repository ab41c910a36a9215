-- Up to $2 events that were withheld, of devices that are no longer muted at $1, the oldest alerts first. The opening of
-- an alert that was acknowledged meanwhile stays withheld: an operator knows of it.
-- Reads alert_withheld whole; index: the primary key of alerts, the unique key of alert_mutes.
delete from alert_withheld as w
using (
    select
        h.alert_id,
        a.kind,
        a.stream,
        a.device_id,
        a.opened_at,
        a.closed_at,
        a.value,
        a.bound,
        a.details
    from alert_withheld as h
    inner join alerts as a on h.alert_id = a.id
    where
        (h.event = 'closed' or a.acknowledged_at is null)
        and not exists (
            select
            from alert_mutes as u
            where
                u.stream = a.stream and u.device_id = a.device_id
                and (u.kind is null or u.kind = a.kind)
                and u.muted_until > $1::timestamptz
        )
    order by h.alert_id
    limit $2
) as a
where w.alert_id = a.alert_id
returning
    w.event,
    w.alert_id,
    a.kind,
    a.stream,
    a.device_id,
    a.opened_at,
    a.closed_at,
    a.value,
    a.bound,
    a.details::text as details
