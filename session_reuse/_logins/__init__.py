"""What comes around the life of one session: pools of logins, and the job that keeps logins alive."""
