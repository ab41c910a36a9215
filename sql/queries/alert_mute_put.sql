-- Mutes the alerts of a kind ($3; null: of all kinds) of a device ($2) of a stream ($1) until $4. It replaces an earlier
-- mute of the same.
-- Index: the unique key of alert_mutes.
insert into alert_mutes (stream, device_id, kind, muted_until, muted_at, muted_key, muted_name, muted_note)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (stream, device_id, kind) do update
    set
        muted_until = excluded.muted_until,
        muted_at = excluded.muted_at,
        muted_key = excluded.muted_key,
        muted_name = excluded.muted_name,
        muted_note = excluded.muted_note
