DROP TRIGGER api_token_projects_guard ON api_token_projects;
DROP FUNCTION guard_token_projects();
