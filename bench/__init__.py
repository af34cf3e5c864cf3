"""The benchmark: measures the service beside common alternatives, a lower bound and its peers, in one run.

What is compared takes turns: each round runs every contender once, so that a machine that becomes slower or faster
meanwhile does so for all of them. A ratio is the median of the rounds' ratios. Every contender runs in a process of its
own, which imports and connects before its clock starts. docs/performance.md explains each row.
"""
