-- Rights: a token keeps what it was made for, the last admin stays, and nobody sends too many requests.

CREATE OR REPLACE FUNCTION guard_token() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse to change what identifies a token, to extend its rights or its life, and to restore a revoked one.
BEGIN
    IF (NEW.id, NEW.public_id, NEW.secret_hash, NEW.user_id, NEW.role, NEW.created_at, NEW.created_by)
        IS DISTINCT FROM
       (OLD.id, OLD.public_id, OLD.secret_hash, OLD.user_id, OLD.role, OLD.created_at, OLD.created_by)
       OR (OLD.is_limited AND NOT NEW.is_limited) OR NEW.expires_at > OLD.expires_at THEN
        RAISE EXCEPTION 'token ptl_%_… keeps its secret, user and role, and its rights never grow: make a new one',
            OLD.public_id USING ERRCODE = 'check_violation', CONSTRAINT = 'api_tokens_identity';
    ELSIF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'token ptl_%_… was revoked on % for good: make a new one', OLD.public_id, OLD.revoked_at
            USING ERRCODE = 'check_violation', CONSTRAINT = 'api_tokens_revoked_for_good';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER api_tokens_guard BEFORE UPDATE ON api_tokens FOR EACH ROW EXECUTE FUNCTION guard_token();


CREATE OR REPLACE FUNCTION is_full_admin(user_id integer) RETURNS boolean LANGUAGE sql STABLE AS $$
    -- Return whether an active user administers all projects: a superuser, or a member of the group admin without a
    -- limit to some projects.
    SELECT EXISTS (
        SELECT FROM auth_user u
         WHERE u.id = is_full_admin.user_id AND u.is_active AND (u.is_superuser OR (
            EXISTS (SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                     WHERE m.user_id = u.id AND g.name = 'admin')
            AND NOT EXISTS (SELECT FROM user_limits l WHERE l.user_id = u.id))))
$$;


CREATE OR REPLACE FUNCTION guard_last_admin() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse the commit after which no full admin would be left.
DECLARE
    was_admin boolean;
BEGIN
    IF TG_TABLE_NAME = 'user_limits' THEN
        was_admin := EXISTS (SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                              WHERE m.user_id = NEW.user_id AND g.name = 'admin');
    ELSIF TG_TABLE_NAME = 'auth_user_groups' THEN
        was_admin := NOT EXISTS (SELECT FROM auth_user u WHERE u.id = OLD.user_id AND NOT u.is_active)
                 AND NOT EXISTS (SELECT FROM auth_group g WHERE g.id = OLD.group_id AND g.name <> 'admin');
    ELSIF TG_TABLE_NAME = 'auth_group' THEN
        was_admin := OLD.name = 'admin';
    ELSE
        was_admin := OLD.is_active AND (OLD.is_superuser OR EXISTS (
            SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
             WHERE m.user_id = OLD.id AND g.name = 'admin'));
    END IF;
    IF NOT was_admin THEN
        RETURN NULL;
    END IF;
    -- When two admins remove each other, the second waits here and counts after the first has committed.
    PERFORM pg_advisory_xact_lock(hashtextextended('portal last admin', 0));
    IF NOT EXISTS (SELECT FROM auth_user u WHERE is_full_admin(u.id)) THEN
        RAISE EXCEPTION 'the last admin without a limit cannot be removed: make another one first'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'auth_user_last_admin';
    END IF;
    RETURN NULL;
END $$;

-- Deferred to the commit, because a form takes groups away before it adds others.
CREATE CONSTRAINT TRIGGER auth_user_last_admin AFTER UPDATE OF is_active, is_superuser OR DELETE ON auth_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin();
CREATE CONSTRAINT TRIGGER auth_user_groups_last_admin AFTER UPDATE OR DELETE ON auth_user_groups
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin();
CREATE CONSTRAINT TRIGGER auth_group_last_admin AFTER UPDATE OF name OR DELETE ON auth_group
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin();
CREATE CONSTRAINT TRIGGER user_limits_last_admin AFTER INSERT OR UPDATE ON user_limits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin();


CREATE OR REPLACE FUNCTION refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
-- Refuse to empty a table of users or groups, because the last admin is in it.
BEGIN
    RAISE EXCEPTION 'TRUNCATE on % is refused: the last admin cannot be removed', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = 'auth_user_last_admin';
END $$;

CREATE TRIGGER auth_user_no_truncate BEFORE TRUNCATE ON auth_user EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER auth_user_groups_no_truncate BEFORE TRUNCATE ON auth_user_groups EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER auth_group_no_truncate BEFORE TRUNCATE ON auth_group EXECUTE FUNCTION refuse_truncate();


-- ALWAYS: the triggers also fire in a session that acts as a replica, where ordinary triggers do not.
ALTER TABLE api_tokens ENABLE ALWAYS TRIGGER api_tokens_guard;
ALTER TABLE user_limits ENABLE ALWAYS TRIGGER user_limits_last_admin;
ALTER TABLE auth_user ENABLE ALWAYS TRIGGER auth_user_last_admin;
ALTER TABLE auth_user ENABLE ALWAYS TRIGGER auth_user_no_truncate;
ALTER TABLE auth_user_groups ENABLE ALWAYS TRIGGER auth_user_groups_last_admin;
ALTER TABLE auth_user_groups ENABLE ALWAYS TRIGGER auth_user_groups_no_truncate;
ALTER TABLE auth_group ENABLE ALWAYS TRIGGER auth_group_last_admin;
ALTER TABLE auth_group ENABLE ALWAYS TRIGGER auth_group_no_truncate;


CREATE OR REPLACE FUNCTION count_request(keys text[], per_minute integer[]) RETURNS double precision
LANGUAGE plpgsql AS $$
-- Count one request against each key, and return how many seconds the caller must wait: 0 means go on.
--
-- The generic cell rate algorithm (ITU-T I.371), with a burst of one minute's worth. It does not count a request that
-- it refuses.
DECLARE
    moment timestamptz := clock_timestamp();
    step interval;
    wait interval;
BEGIN
    FOR i IN 1 .. cardinality(keys) LOOP
        step := interval '1 minute' / per_minute[i];
        INSERT INTO rate_limits AS r VALUES (keys[i], moment + step)
            ON CONFLICT (key) DO UPDATE SET settled_at = greatest(r.settled_at, moment) + step
             WHERE greatest(r.settled_at, moment) + step <= moment + interval '1 minute';
        IF NOT FOUND THEN
            SELECT settled_at + step - interval '1 minute' - moment INTO wait FROM rate_limits WHERE key = keys[i];
            RETURN greatest(extract(epoch FROM wait), 0.001);
        END IF;
    END LOOP;
    RETURN 0;
END $$;
