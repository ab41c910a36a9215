-- A page of the mutes that last beyond $2, the highest numbers first, below $1; of one device ($5) of a stream ($4), unless
-- these are null. A mute that replaced an earlier one has that one's number.
-- Index: the primary key of alert_mutes, backward; read to its end for one device.
select
    u.muted_until,
    u.muted_at,
    u.muted_key,
    u.muted_name,
    u.muted_note,
    u.kind,
    u.id,
    u.stream,
    coalesce(v.external_id, m.external_id) as device
from alert_mutes as u
left join vehicles as v on u.stream = 'vehicle' and u.device_id = v.id
left join meters as m on u.stream = 'meter' and u.device_id = m.id
where
    u.id < $1
    and u.muted_until > $2::timestamptz
    and ($4::text is null or u.stream = $4)
    and ($5::text is null or coalesce(v.external_id, m.external_id) = $5)
order by u.id desc
limit $3
