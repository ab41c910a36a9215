-- Hours are found by their device alone. Beside an index on the hour PostgreSQL chose by what it
-- expected of the newest hours, which lie beyond its statistics: it then read the hours of all devices for
-- each device of a question.
drop index meter_hours_hour;

drop index vehicle_hours_hour;
