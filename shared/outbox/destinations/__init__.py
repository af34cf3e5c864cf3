"""The statements about destinations: their breakers and probes, their pauses, and their limits."""
