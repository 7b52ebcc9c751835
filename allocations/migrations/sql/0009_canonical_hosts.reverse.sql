ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_canonical_host;

-- The lowest free port of a range, or NULL where the range is full. A look, not a promise: allocate_port promises.
CREATE OR REPLACE FUNCTION find_available_port(range_id uuid, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
    r port_ranges;
BEGIN
    SELECT * INTO r FROM port_ranges WHERE id = range_id;
    IF r.id IS NULL THEN
        RAISE EXCEPTION 'there is no range %', range_id
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'port_ranges_known';
    END IF;
    RETURN (next_free_port(r.start_port, r.end_port, lower(hostname), protocol)).free;
END $$;
-- A new port of one range for a service: the whole row, or an error that says what is wrong.
CREATE OR REPLACE FUNCTION allocate_port(
    project_id uuid, range_id uuid, service_name text, service_type text,
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS port_allocations LANGUAGE plpgsql AS $$
DECLARE
    r port_ranges;
    held port_allocations;
BEGIN
    held := hold_port(project_id, ARRAY[range_id], service_name, service_type, lower(hostname), protocol);
    IF held.id IS NOT NULL THEN
        RETURN held;
    END IF;
    SELECT * INTO r FROM port_ranges WHERE id = range_id;
    IF r.id IS NULL THEN
        RAISE EXCEPTION 'there is no range %', range_id
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'port_ranges_known';
    ELSIF NOT r.is_active THEN
        RAISE EXCEPTION 'range % is not active: no ports are given out from it', r.range_name
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_active';
    END IF;
    RAISE EXCEPTION 'range % (%-%) has no free port on %/%: release one, or extend the range',
        r.range_name, r.start_port, r.end_port, hostname, protocol
        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_not_exhausted';
END $$;


-- Releases what holds the port; false where nothing did.
CREATE OR REPLACE FUNCTION release_port(port int, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE port_allocations a SET status = 'released'
     WHERE a.hostname = lower(release_port.hostname) AND a.protocol = release_port.protocol
       AND a.port_number = port AND a.status <> 'released';
    RETURN FOUND;
END $$;

DROP FUNCTION usable_range(uuid);
DROP FUNCTION canonical_host(text);
