-- What live status learns of a device from one reading to the next: its usual interval in seconds, the power of its
-- register in kW, and its last reading at which it charged. Null until it is known.
alter table meter_live_status
add column interval_seconds double precision,
add column register_kw double precision,
add column active_at timestamptz;

alter table vehicle_live_status
add column interval_seconds double precision,
add column register_kw double precision,
add column active_at timestamptz;
