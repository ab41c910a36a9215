-- A mark of a dirty hour stands for a pass of the rollup, so that a burst of late readings leaves it once.

-- Both at once, before any work: the gateways wait while one is held.
lock table meter_hour_marks, vehicle_hour_marks in access exclusive mode;

-- The pass of the rollup over dirty hours. A pass takes the marks of earlier passes. One row.
create table hours_pass (
    only_row boolean primary key default true check (only_row),
    pass bigint not null
);

insert into hours_pass (pass) values (1);

-- The pass in which a batch left the mark. 0: the mark stands for that batch alone, like those of an older gateway.
-- Each reading that the rollup may lack lies at `earliest` or after it; null: anywhere in the hour.
alter table meter_hour_marks
add column pass bigint not null default 0,
add column earliest timestamptz;

alter table vehicle_hour_marks
add column pass bigint not null default 0,
add column earliest timestamptz;
