-- Guards: what may never happen to an allocation, whoever writes it. The name of a constraint is the contract with
-- Python, which turns it into an error.

CREATE OR REPLACE FUNCTION canonical_host(host text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
-- Return the name that the registry uses for a host: `localhost` for this machine, the shortest form (RFC 5952) of an
-- address, lower case for a name. Return NULL if it is neither a host name nor an address. Python has the same rules.
DECLARE
    name text := lower(host);
    address inet;
BEGIN
    IF name = 'localhost' THEN  -- the usual case first
        RETURN name;
    ELSIF name ~ ':' OR name ~ '^[0-9]+(\.[0-9]+){3}$' THEN
        BEGIN
            address := name::inet;
        EXCEPTION WHEN invalid_text_representation THEN
            RETURN NULL;
        END;
        IF address <<= '::ffff:0:0/96' THEN  -- an IPv4 address, written as IPv6
            address := '0.0.0.0'::inet + (address - '::ffff:0:0'::inet);
        END IF;
        RETURN CASE WHEN address <<= '127.0.0.0/8' OR address IN ('0.0.0.0', '::', '::1') THEN 'localhost'
                    WHEN address <<= '::/96' THEN name  -- PostgreSQL writes these with dots, Python does not
                    ELSE host(address) END;
    ELSIF name IN ('localhost.localdomain', 'localhost4', 'localhost6', 'ip6-localhost', 'ip6-loopback')
       OR name LIKE '%.localhost' THEN
        RETURN 'localhost';
    ELSIF length(name) > 253 OR name ~ '(^|\.)([0-9]+|0x[0-9a-f]*)$'  -- some resolvers read these as an address
       OR name !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$' THEN
        RETURN NULL;
    END IF;
    RETURN name;
END $$;

-- Released rows keep the host name that they were written with.
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_canonical_host
    CHECK (status = 'released' OR coalesce(canonical_host(hostname) = hostname, false));


CREATE OR REPLACE FUNCTION guard_allocation() RETURNS trigger LANGUAGE plpgsql AS $$
-- Fill in the columns that no caller sets (copy of the range, actor, token, time of release), and refuse what may never
-- happen to an allocation.
--
-- Transaction-local settings name the caller: portal.actor, portal.token (the id of its token), and portal.agent, which
-- is 'on' for an agent. Where a project's mode is `ask`, a person decides about the ports of agents.
DECLARE
    project projects;
    held_by_token int;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'port % of % is history and is never deleted: release it instead', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_kept';
    ELSIF TG_OP = 'INSERT' THEN
        IF NEW.status = 'released' THEN
            RAISE EXCEPTION 'port % cannot begin as released: allocate or reserve it', NEW.port_number
                USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_born_held';
        END IF;
        -- The lock waits for a transaction that is changing the range, so that the copy is of the changed range.
        SELECT span, project_id, is_shared INTO NEW.span, NEW.range_project_id, NEW.range_is_shared
            FROM port_ranges WHERE id = NEW.port_range_id FOR KEY SHARE;
        NEW.allocated_by := left(
            coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255);
        NEW.token_id := nullif(current_setting('portal.token', true), '')::uuid;
        IF current_setting('portal.agent', true) = 'on' THEN
            SELECT * INTO project FROM projects WHERE id = NEW.project_id;
            IF project.agent_quota IS NOT NULL AND NEW.token_id IS NOT NULL THEN
                -- Of two calls with one token, the second waits and counts what the first has taken.
                PERFORM pg_advisory_xact_lock(hashtextextended('quota ' || NEW.project_id || NEW.token_id, 0));
                SELECT count(*) INTO held_by_token FROM port_allocations a
                 WHERE a.token_id = NEW.token_id AND a.project_id = NEW.project_id AND a.status <> 'released'
                   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());
                IF held_by_token >= project.agent_quota THEN
                    RAISE EXCEPTION 'This token holds % of the % ports that each may hold in %',
                        held_by_token, project.agent_quota, project.name
                        USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_quota';
                END IF;
            END IF;
            IF project.mode = 'ask' THEN
                -- A reservation expires too: otherwise an agent could keep a port without asking anybody.
                NEW.expires_at := least(NEW.expires_at, statement_timestamp() + interval '1 day');
                NEW.status := CASE NEW.status WHEN 'allocated' THEN 'pending' ELSE NEW.status END;
            END IF;
        END IF;
        RETURN NEW;
    END IF;

    IF OLD.status = 'released' THEN
        RAISE EXCEPTION 'port % of % was released on %: a released allocation never changes, allocate a new one',
            OLD.port_number, OLD.hostname, OLD.released_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_released_for_good';
    ELSIF (NEW.id, NEW.project_id, NEW.port_range_id, NEW.hostname, NEW.protocol, NEW.port_number, NEW.instance,
           NEW.allocated_at, NEW.allocated_by, NEW.token_id) IS DISTINCT FROM
          (OLD.id, OLD.project_id, OLD.port_range_id, OLD.hostname, OLD.protocol, OLD.port_number, OLD.instance,
           OLD.allocated_at, OLD.allocated_by, OLD.token_id) THEN
        RAISE EXCEPTION 'port % of % cannot change its project, range, host, protocol, port or instance: '
            'release it and allocate another', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_identity';
    ELSIF (NEW.expires_at, NEW.service_name) IS DISTINCT FROM (OLD.expires_at, OLD.service_name)
          AND current_setting('portal.agent', true) = 'on'
          AND (SELECT mode FROM projects WHERE id = NEW.project_id) = 'ask' THEN
        RAISE EXCEPTION 'in this project a person decides which service holds port % of %, and until when',
            OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_asked';
    ELSIF NEW.status = 'released' THEN
        NEW.released_at := clock_timestamp();
        NEW.span := NULL;
        NEW.range_project_id := NULL;
        NEW.range_is_shared := NULL;
    ELSIF OLD.status = 'pending' AND NEW.status = 'allocated'
          AND current_setting('portal.agent', true) IS DISTINCT FROM 'on' THEN
        NEW.expires_at := NULL;
    ELSIF NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'port % of % is %, which can only become released', OLD.port_number, OLD.hostname, OLD.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_status_order';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER port_allocations_guard BEFORE INSERT OR UPDATE OR DELETE ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION guard_allocation();
-- ALWAYS: the trigger also fires in a session that acts as a replica, where ordinary triggers do not.
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_guard;
