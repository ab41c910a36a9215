-- The bounds of the partitions of both history tables, whether they are vehicles', and their tables.
-- Index: pg_inherits_parent_index.
select
    i.inhparent = 'vehicle_telemetry_history'::regclass as is_vehicles,
    pg_get_expr(c.relpartbound, c.oid) as bounds,
    c.oid as table_oid
from pg_inherits as i
inner join pg_class as c on i.inhrelid = c.oid
where
    i.inhparent in ('meter_telemetry_history'::regclass, 'vehicle_telemetry_history'::regclass)
    and not i.inhdetachpending
