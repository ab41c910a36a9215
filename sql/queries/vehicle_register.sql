-- Registers a vehicle; no row if another gateway was first.
-- Served by the unique index on vehicles.external_id.
insert into vehicles (external_id)
values ($1)
on conflict (external_id) do nothing
returning id
