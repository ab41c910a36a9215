-- Postpones a delivery to $2.
-- Index: the primary key of alert_deliveries.
update alert_deliveries set attempts = attempts + 1, due_at = $2
where id = $1
