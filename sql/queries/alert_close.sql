-- Closes open alerts of a kind ($1), of devices ($3) of a stream ($2), at $4.
-- Index: alerts_open.
update alerts set closed_at = $4, updated_at = $4
where
    kind = $1 and stream = $2 and closed_at is null and device_id = any($3::integer[])
returning id, device_id, opened_at, value, bound, details::text as details
