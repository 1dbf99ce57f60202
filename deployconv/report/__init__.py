"""What the commands found, for people (console), for scripts (JSON) and for CI (JUnit XML)."""
