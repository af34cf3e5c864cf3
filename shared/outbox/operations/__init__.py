"""What operators read and decide: dead letters, history, statistics, latency, metrics."""
