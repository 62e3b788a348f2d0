"""Read by every Python that a test starts, before anything else: the folder is on PYTHONPATH."""

from guard import keep_to_loopback

keep_to_loopback()
