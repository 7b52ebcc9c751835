-- The allocator: every port that Portal hands out is held by hold_port.

CREATE OR REPLACE FUNCTION next_free_port(
    start_port int, end_port int, hostname text, protocol text, lock_key int DEFAULT NULL,
    OUT free_port int, OUT busy_port int
) LANGUAGE plpgsql AS $$
-- Find the lowest port from start_port to end_port that no allocation holds and on which no listener was seen;
-- free_port is NULL if there is none. An expired reservation or request holds nothing.
--
-- It walks the index of held ports in port order and stops at the first gap. With a lock_key it takes an advisory lock
-- on the port that it returns, until the transaction ends, and skips ports that another transaction has locked;
-- busy_port is the lowest port that it skipped.
DECLARE
    taken int;
BEGIN
    free_port := start_port;
    FOR taken IN
        SELECT a.port_number FROM port_allocations a
         WHERE a.hostname = next_free_port.hostname AND a.protocol = next_free_port.protocol
           AND a.port_number BETWEEN start_port AND end_port AND a.status <> 'released'
           AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
        UNION ALL
        SELECT l.port FROM listeners l
         WHERE l.hostname = next_free_port.hostname AND l.protocol = next_free_port.protocol
           AND l.port BETWEEN start_port AND end_port
        UNION ALL
        SELECT end_port + 1
        ORDER BY 1
    LOOP
        WHILE free_port < taken LOOP
            IF lock_key IS NULL OR pg_try_advisory_xact_lock(lock_key, free_port) THEN
                RETURN;
            END IF;
            busy_port := coalesce(busy_port, free_port);
            free_port := free_port + 1;
        END LOOP;
        free_port := greatest(free_port, taken + 1);
    END LOOP;
    free_port := NULL;
END $$;


CREATE OR REPLACE FUNCTION next_instance(project_id uuid, service_name text, hostname text, protocol text) RETURNS int
LANGUAGE sql STABLE AS $$
    -- Return the lowest instance number of a service that is not in use.
    WITH used AS (
        SELECT a.instance FROM port_allocations a
         WHERE a.project_id = next_instance.project_id AND a.service_name = next_instance.service_name
           AND a.hostname = next_instance.hostname AND a.protocol = next_instance.protocol
           AND a.status <> 'released')
    SELECT min(free) FROM (SELECT 0 AS free UNION ALL SELECT instance + 1 FROM used) candidates
     WHERE free NOT IN (SELECT instance FROM used)
$$;


CREATE OR REPLACE FUNCTION hold_port(
    project_id uuid, range_ids uuid[], service_name text, service_type text DEFAULT '',
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp', port_number int DEFAULT NULL,
    status text DEFAULT 'allocated', description text DEFAULT '', cloudflare_hostname text DEFAULT NULL,
    metadata jsonb DEFAULT '{}', expires_at timestamptz DEFAULT NULL, reuse boolean DEFAULT false
) RETURNS port_allocations LANGUAGE plpgsql AS $$
-- Hold one port for a service: port_number, or the lowest free port of the active ranges, tried in the order of
-- range_ids. Return NULL if port_number is held or the ranges are full. With reuse, return the service's instance 0 if
-- it exists.
--
-- Two allocators in one range never get the same port, and neither waits for the other to commit: next_free_port locks
-- the port that it finds and skips one that another transaction has locked. The unique index decides in the end. Only
-- if no other port is left does an allocator wait for such a transaction, because that one may still roll back.
--
-- Parameters are named like columns. A bare name in a query is the column; hold_port.name is the parameter.
#variable_conflict use_column
DECLARE
    socket_key int := hashtext(hostname || ' ' || protocol);
    candidate_range uuid;
    r port_ranges;
    held port_allocations;
    candidate int;
    walk record;
    waiting_for int;  -- the lowest port that another transaction has locked
    new_instance int := 0;
BEGIN
    IF service_name IS NOT NULL THEN
        -- Callers that ask for the same service wait for each other. Nobody else waits.
        PERFORM pg_advisory_xact_lock(
            hashtextextended(concat_ws(' ', project_id, service_name, hostname, protocol), 0));
        SELECT * INTO held FROM port_allocations a
         WHERE a.project_id = hold_port.project_id AND a.service_name = hold_port.service_name
           AND a.hostname = hold_port.hostname AND a.protocol = hold_port.protocol
           AND a.instance = 0 AND a.status <> 'released';
        IF held.status = 'pending' AND held.expires_at <= statement_timestamp() THEN  -- nobody decided in time
            UPDATE port_allocations a SET status = 'released' WHERE a.id = held.id;
            held := NULL;
        ELSIF reuse AND held.status IN ('allocated', 'pending') THEN
            RETURN held;
        END IF;
    END IF;

    IF port_number IS NOT NULL AND status = 'allocated' THEN
        -- The project's own reservation of this port makes way for the allocation. Where a person decides about the
        -- ports of agents, an agent takes only what its own token has reserved.
        UPDATE port_allocations a SET status = 'released'
         WHERE a.hostname = hold_port.hostname AND a.protocol = hold_port.protocol
           AND a.port_number = hold_port.port_number AND a.project_id = hold_port.project_id AND a.status = 'reserved'
           AND (current_setting('portal.agent', true) IS DISTINCT FROM 'on'
                OR a.token_id = nullif(current_setting('portal.token', true), '')::uuid
                OR NOT EXISTS (SELECT FROM projects p WHERE p.id = a.project_id AND p.mode = 'ask'))
           -- In any other range the port cannot be held, and the reservation would be lost for nothing.
           AND EXISTS (SELECT FROM port_ranges own
                        WHERE own.id = a.port_range_id AND own.id = ANY (range_ids) AND own.is_active);
    END IF;
    IF cloudflare_hostname IS NOT NULL THEN
        -- An expired reservation or request makes way for its Cloudflare hostname too.
        UPDATE port_allocations a SET status = 'released'
         WHERE a.cloudflare_hostname = hold_port.cloudflare_hostname
           AND a.status IN ('reserved', 'pending') AND a.expires_at <= statement_timestamp();
    END IF;
    IF held.id IS NOT NULL THEN
        new_instance := next_instance(project_id, service_name, hostname, protocol);
    END IF;

    LOOP
        waiting_for := NULL;
        FOREACH candidate_range IN ARRAY range_ids LOOP
            SELECT * INTO r FROM port_ranges WHERE id = candidate_range AND is_active;
            CONTINUE WHEN r.id IS NULL;
            candidate := coalesce(port_number, r.start_port);
            LOOP
                IF port_number IS NULL THEN
                    walk := next_free_port(candidate, r.end_port, hostname, protocol, socket_key);
                    candidate := walk.free_port;
                    waiting_for := coalesce(waiting_for, walk.busy_port);
                    EXIT WHEN candidate IS NULL;
                END IF;
                FOR attempt IN 1..2 LOOP
                    INSERT INTO port_allocations AS a
                        (project_id, port_range_id, port_number, service_name, instance, service_type, description,
                         status, hostname, protocol, cloudflare_hostname, metadata, expires_at)
                        VALUES (hold_port.project_id, r.id, candidate, hold_port.service_name, new_instance,
                                hold_port.service_type, hold_port.description, hold_port.status, hold_port.hostname,
                                hold_port.protocol, hold_port.cloudflare_hostname, hold_port.metadata,
                                hold_port.expires_at)
                        ON CONFLICT (hostname, protocol, port_number) WHERE a.status <> 'released' DO NOTHING
                        RETURNING a.* INTO held;
                    IF FOUND THEN RETURN held; END IF;
                    -- An expired reservation or request makes way at this moment; no job has to run first.
                    UPDATE port_allocations a SET status = 'released'
                     WHERE a.hostname = hold_port.hostname AND a.protocol = hold_port.protocol
                       AND a.port_number = candidate
                       AND a.status IN ('reserved', 'pending') AND a.expires_at <= statement_timestamp();
                    EXIT WHEN NOT FOUND;
                END LOOP;
                EXIT WHEN port_number IS NOT NULL;
                candidate := candidate + 1;
            END LOOP;
        END LOOP;
        IF waiting_for IS NULL THEN RETURN NULL; END IF;
        PERFORM pg_advisory_xact_lock(socket_key, waiting_for);
    END LOOP;
END $$;


CREATE OR REPLACE FUNCTION usable_range(range_id uuid) RETURNS port_ranges LANGUAGE plpgsql STABLE AS $$
-- Return the range with this id, or raise an error that says why no port comes from it.
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


CREATE OR REPLACE FUNCTION find_available_port(
    range_id uuid, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS int LANGUAGE plpgsql STABLE AS $$
-- Return the lowest free port of a range, or NULL if the range is full. It holds nothing: another caller may take the
-- port at any moment.
DECLARE
    r port_ranges := usable_range(range_id);
BEGIN
    RETURN (next_free_port(r.start_port, r.end_port, canonical_host(hostname), protocol)).free_port;
END $$;


CREATE OR REPLACE FUNCTION allocate_port(
    project_id uuid, range_id uuid, service_name text, service_type text,
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp'
) RETURNS port_allocations LANGUAGE plpgsql AS $$
-- Allocate a new port of one range to a service. Return the whole row, or raise an error that says what is wrong.
--
-- Each call takes another port. Write SELECT * FROM allocate_port(…), because SELECT (allocate_port(…)).* calls it once
-- for each column.
DECLARE
    held port_allocations;
    r port_ranges;
BEGIN
    IF project_id IS NULL THEN  -- what a subquery returns for a misspelt name
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


CREATE OR REPLACE FUNCTION release_port(port int, hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp')
RETURNS boolean LANGUAGE plpgsql AS $$
-- Release the allocation or reservation of a port. Return false if nothing holds it.
BEGIN
    UPDATE port_allocations a SET status = 'released'
     WHERE a.hostname = canonical_host(release_port.hostname) AND a.protocol = release_port.protocol
       AND a.port_number = port AND a.status <> 'released';
    RETURN FOUND;
END $$;
