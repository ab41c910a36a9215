-- Rolled-up hours of devices, exact, and marks of the hours that later readings made dirty.

-- How far hours are rolled up. Readings up to the watermark sealed_to leave a mark in the transaction that
-- stores them. The hours from built_from to built_to are rolled up, where they can be. One row.
create table hours_progress (
    only_row boolean primary key default true check (only_row),
    sealed_to timestamptz,
    built_from timestamptz,
    built_to timestamptz
);

insert into hours_progress default values;

-- A row holds the hour (hour, hour + 1 h] of a meter. Without a row its readings are read. All columns but
-- those of the ends are of the readings after the first: see the module energy::hour.
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

-- Hours are removed with the history's retention.
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

-- A row for each batch, device and hour with a reading up to the watermark. Nothing is ever updated here, so
-- that no mark is lost between a writer and the rollup.
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
