"""The phase flows and their parent."""
