-- Keeps other changes to a vehicle's sessions out until the transaction ends.
-- Served by the primary key of vehicles.
select id
from vehicles
where id = $1
for no key update
