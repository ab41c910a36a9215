-- Registers a meter; no row if another gateway was first.
-- Served by the unique index on meters.external_id.
insert into meters (external_id)
values ($1)
on conflict (external_id) do nothing
returning id
