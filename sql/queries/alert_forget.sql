-- Forgets alerts that were closed before $1.
-- Reads alerts whole, once a day.
delete from alerts
where closed_at < $1
