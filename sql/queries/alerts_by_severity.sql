-- A page of alerts: those of some kinds ($8) first, and the newest first within each group. It begins after the alert
-- with the id $1; $13 says whether its kind is among them. Null filters nothing. A mute counts if it lasts beyond $12, and
-- only for an open alert. The mutes of the page's alerts are looked up last, so that they cost the page and not every open
-- alert.
-- Index: alerts_open if only open ones are asked for, which is sorted whole; otherwise reads alerts whole. The unique key
-- of alert_mutes.
select
    a.id,
    a.kind,
    a.stream,
    coalesce(v.external_id, m.external_id) as device,
    a.opened_at,
    a.updated_at,
    a.closed_at,
    a.value,
    a.bound,
    a.details::text as details,
    a.acknowledged_at,
    a.acknowledged_key,
    a.acknowledged_name,
    a.acknowledged_note,
    q.muted_until,
    q.muted_at,
    q.muted_key,
    q.muted_name,
    q.muted_note,
    q.kind as muted_kind
from (
    select
        a.id,
        a.kind,
        a.stream,
        a.device_id,
        a.opened_at,
        a.updated_at,
        a.closed_at,
        a.value,
        a.bound,
        a.details,
        a.acknowledged_at,
        a.acknowledged_key,
        a.acknowledged_name,
        a.acknowledged_note
    from alerts as a
    left join vehicles as v on a.stream = 'vehicle' and a.device_id = v.id
    left join meters as m on a.stream = 'meter' and a.device_id = m.id
    where
        (a.kind = any($8::text[]), a.id) < ($13::boolean, $1)
        and ($2::text is null or a.kind = $2)
        and ($3::boolean is null or $3 = (a.closed_at is null))
        and ($5::text is null or a.stream = $5)
        and ($6::text is null or coalesce(v.external_id, m.external_id) = $6)
        and ($7::text is null or starts_with(coalesce(v.external_id, m.external_id), $7))
        and ($9::boolean is null or $9 = (a.kind = any($8::text[])))
        and ($10::boolean is null or $10 = (a.acknowledged_at is not null))
        and (
            $11::boolean is null
            or $11 = (
                a.closed_at is null
                and exists (
                    select
                    from alert_mutes as u
                    where
                        u.stream = a.stream and u.device_id = a.device_id
                        and (u.kind is null or u.kind = a.kind)
                        and u.muted_until > $12::timestamptz
                )
            )
        )
    order by a.kind = any($8::text[]) desc, a.id desc
    limit $4
) as a
left join vehicles as v on a.stream = 'vehicle' and a.device_id = v.id
left join meters as m on a.stream = 'meter' and a.device_id = m.id
left join lateral (
    select
        u.muted_until,
        u.muted_at,
        u.muted_key,
        u.muted_name,
        u.muted_note,
        u.kind
    from alert_mutes as u
    where
        a.closed_at is null
        and u.stream = a.stream and u.device_id = a.device_id
        and (u.kind is null or u.kind = a.kind)
        and u.muted_until > $12::timestamptz
    order by u.muted_until desc
    limit 1
) as q on true
order by a.kind = any($8::text[]) desc, a.id desc
