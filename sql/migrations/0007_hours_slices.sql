-- Where the rollup goes on within the hours that it rolls up. Each of its transactions moves the place, so that an error
-- or a restart repeats at most one of them.

-- A row for the hours that have passed since the last rollup (is_new), and one for older hours. It counts for as long as
-- its hours adjoin the hours that are rolled up. The hours start from hours_from to before hours_to. Each stream goes on with the first
-- device from meter_id on, and of this one with the hours from meter_from on. Null: the stream is done.
create table hours_slices (
    hours_from timestamptz not null,
    hours_to timestamptz not null,
    meter_from timestamptz,
    vehicle_from timestamptz,
    meter_id integer,
    vehicle_id integer,
    is_new boolean primary key,
    check (hours_from < hours_to)
);
