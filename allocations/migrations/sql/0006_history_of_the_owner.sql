-- The application may not write events. The trigger does, as the owner of the function. A function with somebody else's
-- rights must find its tables in a schema to which its caller can't add any.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION record_event() SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END $$;
