ALTER FUNCTION record_event() SECURITY INVOKER RESET search_path;
