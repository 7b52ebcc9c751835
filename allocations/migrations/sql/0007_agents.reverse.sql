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

DROP TRIGGER port_allocations_guard ON port_allocations;
CREATE TRIGGER port_allocations_guard BEFORE INSERT OR UPDATE OR DELETE ON port_allocations
    FOR EACH ROW EXECUTE FUNCTION guard_allocation_v1();
ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_guard;
DROP FUNCTION guard_allocation_v2();
