-- Queues a delivery unless $3 are queued already; no row means that the queue is full.
-- Reads alert_deliveries whole: bounded by $3.
insert into alert_deliveries (body, created_at, due_at)
select
    $1,
    $2,
    $2
where (select count(*) from alert_deliveries) < $3
returning id
