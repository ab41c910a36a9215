-- Opens an alert, or updates the open one. Returns whether it was opened now.
-- Index: alerts_open.
insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
values ($1, $2, $3, $4, $4, $5, $6, $7::text::jsonb)
on conflict (kind, stream, device_id) where closed_at is null do update
    set
        updated_at = excluded.updated_at,
        value = excluded.value,
        bound = excluded.bound,
        details = excluded.details
returning id, opened_at, (xmax = 0) as is_new
