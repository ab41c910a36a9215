-- The layouts that are compared. `history` is as the gateway has it, without partitions: the rows are
-- all of one month.
SET client_min_messages = warning;

DROP SCHEMA IF EXISTS wattgate_layouts CASCADE;

CREATE SCHEMA wattgate_layouts;

CREATE TABLE wattgate_layouts.history (
    ts timestamptz NOT NULL,
    kwh_consumed_ac double precision,
    kwh_register double precision,
    voltage double precision NOT NULL,
    meter_id integer NOT NULL,
    PRIMARY KEY (meter_id, ts)
);

CREATE TABLE wattgate_layouts.history_bare (LIKE wattgate_layouts.history);

CREATE TABLE wattgate_layouts.history_brin (LIKE wattgate_layouts.history);

CREATE INDEX ON wattgate_layouts.history_brin USING brin (ts);

-- Several readings of one device in one row. Its key says nothing of the readings within: that a
-- (device, time) is stored once is not the database's to keep any more.
CREATE TABLE wattgate_layouts.history_chunks (
    first_ts timestamptz NOT NULL,
    meter_id integer NOT NULL,
    ts timestamptz [] NOT NULL,
    kwh_consumed_ac double precision [] NOT NULL,
    kwh_register double precision [] NOT NULL,
    voltage double precision [] NOT NULL,
    PRIMARY KEY (meter_id, first_ts)
);

CREATE TABLE wattgate_layouts.live (
    meter_id integer PRIMARY KEY,
    ts timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    kwh_consumed_ac double precision,
    kwh_register double precision,
    voltage double precision NOT NULL
) WITH (fillfactor = 50);
