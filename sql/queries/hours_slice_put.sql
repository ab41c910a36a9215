-- Records where each stream goes on ($4 and $5, $6 and $7) within the hours from $2 to before $3, new ones or older
-- ones ($1).
-- Index: the primary key of hours_slices, one row.
insert into hours_slices (is_new, hours_from, hours_to, meter_id, meter_from, vehicle_id, vehicle_from)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (is_new) do update set
    hours_from = excluded.hours_from,
    hours_to = excluded.hours_to,
    meter_id = excluded.meter_id,
    meter_from = excluded.meter_from,
    vehicle_id = excluded.vehicle_id,
    vehicle_from = excluded.vehicle_from
