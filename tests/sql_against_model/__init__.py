"""The statements do to real rows what the model says, whatever happens in between.

Hypothesis draws which of the model's possible steps happens next. The step is carried out on PostgreSQL and Redis by
the functions that relay, consumer and operator use, each process on a connection of its own, and then the rows and
the lists are compared with the model's world. A divergence is printed as the model prints its counterexamples.

Narrower than in the model: a pop takes the head of a list; a lease does not end while a claim in doubt holds its row;
after an outage of PostgreSQL reap_running waits until every consumer has said how its claim ended; what read_lists
concludes about missing rows is the model's own judgement. A Redis that was restarted has a new marker here, which
stands for its new run id. Wider: a statement that meets a lock or no row that fits is tried too, and has to wait, to
pass the row by, or to change nothing.

That is messages/'s, with the model of the same name. Each of the other folders has the service of a small model;
small_walks.py walks through all but that of accounts/.
"""
