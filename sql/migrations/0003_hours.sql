-- Hours of devices that are summed up, exactly, and what tells that readings have come since.

-- How far. Readings up to sealed_to leave a mark in the transaction that stores them; the hours from
-- built_from to built_to are summed up, as far as they can be. One row.
create table hours_progress (
    only_row boolean primary key default true check (only_row),
    sealed_to timestamptz,
    built_from timestamptz,
    built_to timestamptz
);

insert into hours_progress default values;

-- A row: the hour (hour, hour + 1 h] of a meter. No row: its readings are read. All but the ends is
-- of the readings after the first: see the module analytics::condensed.
create table meter_hours (
    hour timestamptz not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    first_kwh double precision not null,
    last_kwh double precision not null,
    energy_mwh bigint not null,
    power_watts bigint not null,
    meter_id integer not null,
    readings integer not null,
    resets integer not null,
    suspect integer not null,
    is_register boolean not null,
    primary key (meter_id, hour)
);

-- Hours go with the history's retention.
create index meter_hours_hour on meter_hours (hour);

-- The same of a vehicle. The temperatures are of the readings between the first and the last, in
-- 1e-6 °C and 1e-24 °C.
create table vehicle_hours (
    hour timestamptz not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    first_kwh double precision not null,
    last_kwh double precision not null,
    energy_mwh bigint not null,
    power_watts bigint not null,
    first_temp double precision not null,
    last_temp double precision not null,
    temperature_micro bigint not null,
    temperature_rest bigint not null,
    vehicle_id integer not null,
    readings integer not null,
    resets integer not null,
    suspect integer not null,
    is_register boolean not null,
    primary key (vehicle_id, hour)
);

create index vehicle_hours_hour on vehicle_hours (hour);

-- A row a batch, device and hour with a reading in it that was sealed. Nothing is ever updated here,
-- so that no mark is lost between a writer and who sums up.
create table meter_hour_marks (
    hour timestamptz not null,
    id bigint generated always as identity,
    meter_id integer not null,
    primary key (hour, meter_id, id)
);

create table vehicle_hour_marks (
    hour timestamptz not null,
    id bigint generated always as identity,
    vehicle_id integer not null,
    primary key (hour, vehicle_id, id)
);
