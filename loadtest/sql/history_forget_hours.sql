-- Lets the gateway sum up all hours anew. Whoever does it at the moment is stopped first.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE application_name = 'wattgate summaries' AND datname = current_database();
TRUNCATE meter_hours, vehicle_hours, meter_hour_marks, vehicle_hour_marks, hours_slices;
UPDATE hours_progress SET built_from = sealed_to, built_to = sealed_to;
