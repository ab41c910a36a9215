-- What operators do about alerts: they acknowledge an alert, and mute a device for some time.

-- An acknowledgement belongs to one opening: an alert that opens again is a new row. Null: the alert is not
-- acknowledged. The key and its name are null if the gateway required no key.
alter table alerts
add column acknowledged_at timestamptz,
add column acknowledged_key text,
add column acknowledged_name text,
add column acknowledged_note text;

-- While a row stands and its time has not come, alerts of the device send nothing to the webhook. No kind: of all kinds.
create table alert_mutes (
    id bigint generated always as identity primary key,
    stream text not null check (stream in ('meter', 'vehicle')),
    device_id integer not null,
    kind text,
    muted_until timestamptz not null,
    muted_at timestamptz not null,
    muted_key text,
    muted_name text,
    muted_note text,
    unique nulls not distinct (stream, device_id, kind)
);

-- Alerts whose opening or closing was not delivered because of a mute. The row is deleted when it is delivered, or when
-- there is nothing to deliver any more.
create table alert_withheld (
    alert_id bigint primary key references alerts (id) on delete cascade,
    event text not null check (event in ('opened', 'closed'))
);
