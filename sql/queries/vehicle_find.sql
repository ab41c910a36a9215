-- The short id of a vehicle.
-- Served by the unique index on vehicles.external_id.
select id
from vehicles
where external_id = $1
