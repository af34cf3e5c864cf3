"""The relay's loop: reap, publish, prune, expire, sleep until woken."""
