"""The hosts that HTTP requests may go to, and the limits of their rates and sizes."""
