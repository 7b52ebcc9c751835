DROP FUNCTION release_port(int, text, text);
DROP FUNCTION allocate_port(uuid, uuid, text, text, text, text);
DROP FUNCTION find_available_port(uuid, text, text);
DROP FUNCTION usable_range(uuid);
DROP FUNCTION hold_port(uuid, uuid[], text, text, text, text, int, text, text, text, jsonb, timestamptz, boolean);
DROP FUNCTION next_instance(uuid, text, text, text);
DROP FUNCTION next_free_port(int, int, text, text, int);
