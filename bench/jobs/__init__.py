"""A job with nothing to do, for our worker and for other job queues, each set up as its documentation says is best."""
