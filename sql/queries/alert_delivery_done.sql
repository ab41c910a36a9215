-- Removes a delivery from the queue.
-- Index: the primary key of alert_deliveries.
delete from alert_deliveries
where id = $1
