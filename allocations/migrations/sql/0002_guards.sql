-- What Django's Meta cannot say: foreign keys with a copy, what never changes, and the history.
-- Constraint names are the contract with allocations/ports/refusals.py, which turns them into sentences.

ALTER TABLE port_ranges ADD CONSTRAINT port_ranges_project_fk
    FOREIGN KEY (project_id) REFERENCES projects (id);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_project_fk
    FOREIGN KEY (project_id) REFERENCES projects (id);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_range_fk
    FOREIGN KEY (port_range_id) REFERENCES port_ranges (id);

-- An allocation carries a copy of its range's span, owner and sharing while it is held. The cascade re-runs its
-- CHECKs, so a range cannot shrink, move, change hands or stop being shared under a held port, and no race can
-- slip between. A released row has NULLs here, and MATCH SIMPLE lets it go.
ALTER TABLE port_ranges ADD CONSTRAINT port_ranges_copied UNIQUE (id, span, project_id, is_shared);
ALTER TABLE port_allocations ADD CONSTRAINT port_allocations_range_copy_fk
    FOREIGN KEY (port_range_id, span, range_project_id, range_is_shared)
    REFERENCES port_ranges (id, span, project_id, is_shared) ON UPDATE CASCADE;

-- Audits touch last_used_at and health of every row, which no index holds: room on the page keeps that cheap (HOT).
ALTER TABLE port_allocations SET (fillfactor = 80);


-- Fills in the copies and the release time; refuses what must never happen to an allocation.
CREATE FUNCTION guard_allocation_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'port % of % is history and is never deleted: release it instead', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_kept';
    ELSIF TG_OP = 'INSERT' THEN
        IF NEW.status = 'released' THEN
            RAISE EXCEPTION 'port % cannot begin as released: allocate or reserve it', NEW.port_number
                USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_born_held';
        END IF;
        -- The lock waits for a range that is just being changed, so that the copy is of what it has become.
        SELECT span, project_id, is_shared INTO NEW.span, NEW.range_project_id, NEW.range_is_shared
            FROM port_ranges WHERE id = NEW.port_range_id FOR KEY SHARE;
        RETURN NEW;
    END IF;

    IF OLD.status = 'released' THEN
        RAISE EXCEPTION 'port % of % was released on %: a released allocation never changes, allocate a new one',
            OLD.port_number, OLD.hostname, OLD.released_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_released_for_good';
    ELSIF (NEW.id, NEW.project_id, NEW.port_range_id, NEW.hostname, NEW.protocol, NEW.port_number, NEW.instance,
           NEW.allocated_at) IS DISTINCT FROM
          (OLD.id, OLD.project_id, OLD.port_range_id, OLD.hostname, OLD.protocol, OLD.port_number, OLD.instance,
           OLD.allocated_at) THEN
        RAISE EXCEPTION 'port % of % cannot change its project, range, host, protocol, port or instance: '
            'release it and allocate another', OLD.port_number, OLD.hostname
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_identity';
    ELSIF NEW.status = 'released' THEN
        NEW.released_at := clock_timestamp();
        NEW.span := NULL;
        NEW.range_project_id := NULL;
        NEW.range_is_shared := NULL;
    ELSIF NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'port % of % is %, which can only become released', OLD.port_number, OLD.hostname, OLD.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'port_allocations_status_order';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER port_allocations_guard BEFORE INSERT OR UPDATE OR DELETE ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION guard_allocation_v1();


-- History is not rewritten, and no table with history is emptied at once.
CREATE FUNCTION refuse_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: the history is kept as it was written', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_kept';
END $$;

CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_v1();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION refuse_v1();
CREATE TRIGGER port_allocations_no_truncate BEFORE TRUNCATE ON port_allocations EXECUTE FUNCTION refuse_v1();
CREATE TRIGGER port_ranges_no_truncate BEFORE TRUNCATE ON port_ranges EXECUTE FUNCTION refuse_v1();
CREATE TRIGGER projects_no_truncate BEFORE TRUNCATE ON projects EXECUTE FUNCTION refuse_v1();


-- Writes one event per change. Who and by which door travel as transaction-local settings, portal.actor and
-- portal.source; without them the change came from a database session, and its role is the actor.
CREATE FUNCTION record_event_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- As JSON, because the three tables have different columns.
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    subject jsonb := coalesce(after, before);
    verb text := CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END;
    label text;
    -- For something new: what it is, without keys and copies.
    changes jsonb := jsonb_strip_nulls(subject) - ARRAY['id', 'project_id', 'port_range_id', 'span',
        'range_project_id', 'range_is_shared', 'created_at', 'allocated_at', 'allocated_by', 'token_id'];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(key, jsonb_build_array(o.value, n.value)) INTO changes
            FROM jsonb_each(before) o JOIN jsonb_each(after) n USING (key)
            WHERE o.value IS DISTINCT FROM n.value
              AND key NOT IN ('span', 'range_project_id', 'range_is_shared', 'health', 'last_used_at');
        IF changes IS NULL THEN  -- only a copy followed its range, or an audit looked: no change of the subject
            RETURN NULL;
        END IF;
    END IF;
    CASE TG_TABLE_NAME
        WHEN 'projects' THEN
            label := subject ->> 'name';
        WHEN 'port_ranges' THEN
            label := format('%s %s-%s', subject ->> 'range_name', subject ->> 'start_port', subject ->> 'end_port');
        ELSE
            label := coalesce(subject ->> 'service_name', '(reserved)')
                || CASE WHEN subject ->> 'instance' <> '0' THEN '#' || (subject ->> 'instance') ELSE '' END
                || format(' %s/%s', subject ->> 'port_number', subject ->> 'protocol')
                || CASE WHEN subject ->> 'hostname' <> 'localhost' THEN ' on ' || (subject ->> 'hostname') ELSE '' END;
            IF verb = 'created' OR (after ->> 'status') <> (before ->> 'status') THEN
                verb := CASE WHEN after ->> 'status' = 'pending' THEN 'requested'
                             WHEN before ->> 'status' = 'pending' AND after ->> 'status' = 'allocated' THEN 'approved'
                             ELSE after ->> 'status' END;
            END IF;
    END CASE;
    INSERT INTO events (at, actor, source, verb, subject, subject_id, project_id, label, changes)
    VALUES (
        clock_timestamp(),
        left(coalesce(nullif(current_setting('portal.actor', true), ''), 'db:' || session_user), 255),
        left(coalesce(nullif(current_setting('portal.source', true), ''), 'database'), 50),
        verb,
        TG_ARGV[0],
        (subject ->> 'id')::uuid,
        coalesce(subject ->> 'project_id', subject ->> 'id')::uuid,
        label,
        changes
    );
    RETURN NULL;
END $$;

CREATE TRIGGER projects_event AFTER INSERT OR UPDATE OR DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION record_event_v1('project');
CREATE TRIGGER port_ranges_event AFTER INSERT OR UPDATE OR DELETE ON port_ranges
    FOR EACH ROW EXECUTE FUNCTION record_event_v1('range');
CREATE TRIGGER port_allocations_event_insert AFTER INSERT ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION record_event_v1('allocation');
-- An audit updates every row's last_used_at and health: those must not even call the function.
CREATE TRIGGER port_allocations_event_update AFTER UPDATE ON port_allocations
    FOR EACH ROW
    WHEN ((OLD.status, OLD.service_name, OLD.service_type, OLD.description, OLD.cloudflare_hostname, OLD.metadata,
           OLD.expires_at)
          IS DISTINCT FROM
          (NEW.status, NEW.service_name, NEW.service_type, NEW.description, NEW.cloudflare_hostname, NEW.metadata,
           NEW.expires_at))
    EXECUTE FUNCTION record_event_v1('allocation');


-- ALWAYS: also in a session that plays a replica, where ordinary triggers sleep.
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_guard;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_insert;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_event_update;
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_no_truncate;
ALTER TABLE port_ranges ENABLE ALWAYS TRIGGER port_ranges_event;
ALTER TABLE port_ranges ENABLE ALWAYS TRIGGER port_ranges_no_truncate;
ALTER TABLE projects ENABLE ALWAYS TRIGGER projects_event;
ALTER TABLE projects ENABLE ALWAYS TRIGGER projects_no_truncate;
ALTER TABLE events ENABLE ALWAYS TRIGGER events_append_only;
ALTER TABLE events ENABLE ALWAYS TRIGGER events_no_truncate;
