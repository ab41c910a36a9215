-- The hours that are being rolled up, new ones or older ones ($1), and where each stream goes on.
-- Index: the primary key of hours_slices, one row.
select
    hours_from,
    hours_to,
    meter_id,
    meter_from,
    vehicle_id,
    vehicle_from
from hours_slices
where is_new = $1
