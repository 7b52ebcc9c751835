-- An admin who is limited to some projects cannot look after the rest: the last one is not to be limited, either. And
-- nobody empties the tables of people at once.

CREATE FUNCTION is_full_admin(person integer) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM auth_user u
         WHERE u.id = person AND u.is_active AND (u.is_superuser OR (
            EXISTS (SELECT FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                     WHERE m.user_id = u.id AND g.name = 'admin')
            AND NOT EXISTS (SELECT FROM user_limits l WHERE l.user_id = u.id))))
$$;

-- Refuses the commit after which no full admin would be left.
CREATE FUNCTION guard_last_admin_v2() RETURNS trigger LANGUAGE plpgsql AS $$
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
    -- Of two who remove each other, the second looks again when the first is done.
    PERFORM pg_advisory_xact_lock(hashtextextended('portal last admin', 0));
    IF NOT EXISTS (SELECT FROM auth_user u WHERE is_full_admin(u.id)) THEN
        RAISE EXCEPTION 'the last admin who is not limited cannot be removed: make another one first'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'auth_user_last_admin';
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER auth_user_last_admin ON auth_user;
DROP TRIGGER auth_user_groups_last_admin ON auth_user_groups;
DROP TRIGGER auth_group_last_admin ON auth_group;
DROP FUNCTION guard_last_admin_v1();
CREATE CONSTRAINT TRIGGER auth_user_last_admin AFTER UPDATE OF is_active, is_superuser OR DELETE ON auth_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v2();
CREATE CONSTRAINT TRIGGER auth_user_groups_last_admin AFTER UPDATE OR DELETE ON auth_user_groups
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v2();
CREATE CONSTRAINT TRIGGER auth_group_last_admin AFTER UPDATE OF name OR DELETE ON auth_group
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v2();
CREATE CONSTRAINT TRIGGER user_limits_last_admin AFTER INSERT OR UPDATE ON user_limits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION guard_last_admin_v2();
ALTER TABLE auth_user ENABLE ALWAYS TRIGGER auth_user_last_admin;
ALTER TABLE auth_user_groups ENABLE ALWAYS TRIGGER auth_user_groups_last_admin;
ALTER TABLE auth_group ENABLE ALWAYS TRIGGER auth_group_last_admin;
ALTER TABLE user_limits ENABLE ALWAYS TRIGGER user_limits_last_admin;

CREATE FUNCTION refuse_truncate_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE on % is refused: the last admin cannot be removed', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = 'auth_user_last_admin';
END $$;

CREATE TRIGGER auth_user_no_truncate BEFORE TRUNCATE ON auth_user EXECUTE FUNCTION refuse_truncate_v1();
CREATE TRIGGER auth_user_groups_no_truncate BEFORE TRUNCATE ON auth_user_groups EXECUTE FUNCTION refuse_truncate_v1();
CREATE TRIGGER auth_group_no_truncate BEFORE TRUNCATE ON auth_group EXECUTE FUNCTION refuse_truncate_v1();
ALTER TABLE auth_user ENABLE ALWAYS TRIGGER auth_user_no_truncate;
ALTER TABLE auth_user_groups ENABLE ALWAYS TRIGGER auth_user_groups_no_truncate;
ALTER TABLE auth_group ENABLE ALWAYS TRIGGER auth_group_no_truncate;
