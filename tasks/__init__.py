"""One Prefect task a verb."""
