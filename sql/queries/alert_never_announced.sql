-- Which of some alerts ($1) were never announced: they closed while their opening was withheld, and nothing is left to
-- deliver.
-- Index: the primary key of alert_withheld.
delete from alert_withheld
where alert_id = any($1::bigint[]) and event = 'opened'
returning alert_id
