DROP FUNCTION count_request(text[], integer[]);
DROP TABLE rate_limits;
DROP TRIGGER auth_group_last_admin ON auth_group;
DROP TRIGGER auth_user_groups_last_admin ON auth_user_groups;
DROP TRIGGER auth_user_last_admin ON auth_user;
DROP FUNCTION guard_last_admin_v1();
DROP TRIGGER api_tokens_guard ON api_tokens;
DROP FUNCTION guard_token_v1();
