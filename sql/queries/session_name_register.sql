-- Registers the name of a charging session; no row if another gateway was first.
-- Served by the unique index on session_names.external_id.
insert into session_names (external_id)
values ($1)
on conflict (external_id) do nothing
returning id
