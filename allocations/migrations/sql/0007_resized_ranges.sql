CREATE OR REPLACE FUNCTION hold_port(project_id uuid, range_ids uuid[], service_name text, service_type text DEFAULT '',
    hostname text DEFAULT 'localhost', protocol text DEFAULT 'tcp', port_number integer DEFAULT NULL::integer,
    status text DEFAULT 'allocated', description text DEFAULT '', owner text DEFAULT '',
    cloudflare_hostname text DEFAULT NULL::text, metadata jsonb DEFAULT '{}'::jsonb,
    expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone,
    reuse boolean DEFAULT false) RETURNS port_allocations
    LANGUAGE plpgsql
AS $$
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
            -- The lock waits for a transaction that is changing the range, and lets no other change it until this one
            -- ends. So the range may have changed since the caller chose it.
            SELECT * INTO r FROM port_ranges WHERE id = candidate_range AND is_active FOR KEY SHARE;
            CONTINUE WHEN r.id IS NULL;
            candidate := coalesce(port_number, r.start_port);
            CONTINUE WHEN candidate NOT BETWEEN r.start_port AND r.end_port;
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
                         owner, status, hostname, protocol, cloudflare_hostname, metadata, expires_at)
                        VALUES (hold_port.project_id, r.id, candidate, hold_port.service_name, new_instance,
                                hold_port.service_type, hold_port.description, hold_port.owner, hold_port.status,
                                hold_port.hostname, hold_port.protocol, hold_port.cloudflare_hostname,
                                hold_port.metadata, hold_port.expires_at)
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
