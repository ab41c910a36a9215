-- Withdraws the acknowledgement of an alert. No row: there was none.
-- Index: the primary key of alerts.
update alerts set
    acknowledged_at = null,
    acknowledged_key = null,
    acknowledged_name = null,
    acknowledged_note = null
where id = $1 and acknowledged_at is not null
