-- The sessions that roll hours up, their parallel workers included.
SELECT pid
FROM pg_stat_activity
WHERE application_name = 'wattgate summaries' AND datname = current_database()
