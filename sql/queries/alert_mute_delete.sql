-- Ends the mute of a kind ($3; null: of all kinds) of a device ($2) of a stream ($1). A row only if it would have lasted
-- beyond $4.
-- Index: the unique key of alert_mutes.
with removed as (
    delete from alert_mutes
    where stream = $1 and device_id = $2 and kind is not distinct from $3::text
    returning muted_until
)

select r.muted_until from removed as r
where r.muted_until > $4::timestamptz
