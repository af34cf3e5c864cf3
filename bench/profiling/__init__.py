"""Where the time goes in relay and worker, found by sampling."""
