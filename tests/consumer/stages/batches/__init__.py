"""Many messages at once: what one of them meets is not what its neighbours pay for."""
