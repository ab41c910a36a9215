-- How many readings of vehicles each hour has, from $1 to before $2, on about $3 percent of the pages.
-- Index: none: a sample of the pages of the partitions from $1 to before $2.
select
    date_trunc('hour', f.ts - interval '1 microsecond') as hour,
    count(*) as readings
from vehicle_telemetry_history as f tablesample system ($3::real)
where f.ts >= $1 and f.ts < $2
group by 1
