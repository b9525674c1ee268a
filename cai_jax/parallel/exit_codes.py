"""Exit codes of a run that the same command goes on after: schedulers may start it again.

Anything else that ends a run badly is 1: an error that would only come again.
"""

# Another host was lost or did not come. EX_TEMPFAIL of sysexits.h.
HOST_LOST = 75
# The run was told to end (a signal, or a notice that its machine is taken away), and has saved what
# it had. The code by which HTCondor knows a job that has saved its state to go on elsewhere.
PREEMPTED = 85
