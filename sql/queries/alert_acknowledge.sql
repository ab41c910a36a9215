-- Acknowledges an open alert ($1) at $2, by a key ($3) of some name ($4), with a note ($5). No row: there is no such alert,
-- it has closed, or it is acknowledged already, which then stays as it is.
-- Index: the primary key of alerts.
update alerts set
    acknowledged_at = $2,
    acknowledged_key = $3,
    acknowledged_name = $4,
    acknowledged_note = $5
where id = $1 and closed_at is null and acknowledged_at is null
