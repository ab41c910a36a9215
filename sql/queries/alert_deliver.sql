-- Puts a delivery in the queue unless $3 wait there already; no row says that it is full.
-- Reads alert_deliveries whole: bounded by $3.
insert into alert_deliveries (body, created_at, due_at)
select
    $1,
    $2,
    $2
where (select count(*) from alert_deliveries) < $3
returning id
