-- The newest sessions are listed first, without sorting all.
create index charging_sessions_started on charging_sessions (started_at);
