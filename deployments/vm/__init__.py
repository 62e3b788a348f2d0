"""What a machine in the cloud starts from: the code, the startup script, the watchdog."""
