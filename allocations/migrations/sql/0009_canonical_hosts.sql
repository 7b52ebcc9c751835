-- Every host has one name, also for who writes by SQL: the rules of allocations/hosts.py. And refusals of the functions
-- that people call by hand are sentences.

-- What the registry calls a host: this machine `localhost`, an address in its shortest form (RFC 5952).
CREATE FUNCTION canonical_host(host text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    name text := lower(host);
    address inet;
BEGIN
    IF name = 'localhost' THEN  -- nearly always
        RETURN name;
    ELSIF name ~ ':' OR name ~ '^[0-9]+(\.[0-9]+){3}$' THEN
        BEGIN
            address := name::inet;
        EXCEPTION WHEN invalid_text_representation THEN
            RETURN NULL;
        END;
        IF address <<= '::ffff:0:0/96' THEN  -- an IPv4 address in IPv6 clothes
            address := '0.0.0.0'::inet + (address - '::ffff:0:0'::inet);
        END IF;
        RETURN CASE WHEN address <<= '127.0.0.0/8' OR address IN ('0.0.0.0', '::', '::1') THEN 'localhost'
                    WHEN address <<= '::/96' THEN name  -- PostgreSQL alone writes those with dots
                    ELSE host(address) END;
    ELSIF name IN ('localhost.localdomain', 'localhost4', 'localhost6', 'ip6-localhost', 'ip6-loopback')
       OR name LIKE '%.localhost' THEN
        RETURN 'localhost';
    ELSIF length(name) > 253 OR name ~ '(^|\.)([0-9]+|0x[0-9a-f]*)$'  -- some resolvers read those as an address
       OR name !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$' THEN
        RETURN NULL;
    END IF;
    RETURN name;
END $$;

DO $$
DECLARE
    other record;
BEGIN
    SELECT port_number, protocol, hostname INTO other FROM port_allocations
     WHERE status <> 'released' AND canonical_host(hostname) IS DISTINCT FROM hostname ORDER BY port_number LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'Port % is held on a host that Portal calls otherwise than %: release it, for example by '
            'UPDATE port_allocations SET status = ''released'' WHERE hostname = %, allocate it anew, and begin again',
            other.port_number, other.hostname, quote_literal(other.hostname)
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_one_name';
    END IF;
END $$;

-- History keeps the names that it was written with.
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_canonical_host
    CHECK (status = 'released' OR coalesce(canonical_host(hostname) = hostname, false));


CREATE OR REPLACE FUNCTION find_available_port(
    range_id uuid, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
    r port_ranges := usable_range(range_id);
BEGIN
    RETURN (next_free_port(r.start_port, r.end_port, canonical_host(hostname), protocol)).free;
END $$;


-- The range of that id, or an error that says why no port comes from it.
CREATE FUNCTION usable_range(range_id uuid) RETURNS port_ranges LANGUAGE plpgsql STABLE AS $$
DECLARE
    r port_ranges;
BEGIN
    SELECT * INTO r FROM port_ranges WHERE id = range_id;
    IF r.id IS NULL THEN
        RAISE EXCEPTION 'there is no range %: SELECT id, range_name FROM port_ranges lists them', range_id
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'port_ranges_known';
    ELSIF NOT r.is_active THEN
        RAISE EXCEPTION 'range % is not active: no ports are given out from it', r.range_name
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_active';
    END IF;
    RETURN r;
END $$;


-- A new port of one range for a service: the whole row, or an error that says what is wrong. Each call takes another
-- port; and SELECT (allocate_port(…)).* is one call per column, SELECT * FROM allocate_port(…) is one.
CREATE OR REPLACE FUNCTION allocate_port(
    project_id uuid, range_id uuid, service_name text, service_type text,
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS port_allocations LANGUAGE plpgsql AS $$
DECLARE
    held port_allocations;
    r port_ranges;
BEGIN
    -- NULL is what a misspelt name is to who looks an id up by it.
    IF project_id IS NULL THEN
        RAISE EXCEPTION 'there is no such project: SELECT id, name FROM projects lists them'
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'projects_known';
    ELSIF service_name IS NULL THEN
        RAISE EXCEPTION 'a port is for a service: give its name'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_service';
    END IF;
    held := hold_port(
        project_id, ARRAY[range_id], service_name, coalesce(service_type, ''), canonical_host(hostname), protocol);
    IF held.id IS NOT NULL THEN
        RETURN held;
    END IF;
    r := usable_range(range_id);
    RAISE EXCEPTION 'range % (%-%) has no free port on %/%: release one, or extend the range',
        r.range_name, r.start_port, r.end_port, hostname, protocol
        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_ranges_not_exhausted';
END $$;


-- Releases what holds the port; false where nothing did.
CREATE OR REPLACE FUNCTION release_port(port int, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE port_allocations a SET status = 'released'
     WHERE a.hostname = canonical_host(release_port.hostname) AND a.protocol = release_port.protocol
       AND a.port_number = port AND a.status <> 'released';
    RETURN FOUND;
END $$;
